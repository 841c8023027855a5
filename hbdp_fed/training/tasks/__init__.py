"""What a model can be asked for, and how its answers are judged."""

from hbdp_fed.training.tasks.contract import (
    Evidence,
    Judge,
    Point,
    Statistics,
    Task,
    count_records,
    figures,
    select,
)
from hbdp_fed.training.tasks.registry import TASKS, task_called
from hbdp_fed.training.tasks.thresholds import best_threshold

__all__ = [
    "TASKS",
    "Evidence",
    "Judge",
    "Point",
    "Statistics",
    "Task",
    "best_threshold",
    "count_records",
    "figures",
    "select",
    "task_called",
]
