"""The tasks by name."""

from __future__ import annotations

from collections.abc import Mapping

from hbdp_fed.errors import unknown_choice
from hbdp_fed.training.tasks.classification import BINARY, MULTICLASS, MULTILABEL
from hbdp_fed.training.tasks.contract import Task
from hbdp_fed.training.tasks.segmentation import SEGMENTATION

TASKS: Mapping[str, Task] = {task.name: task for task in (BINARY, MULTICLASS, MULTILABEL, SEGMENTATION)}
"""One task for each name that a data set may have (:data:`hbdp_fed.data.contract.TASKS`)."""


def task_called(name: str) -> Task:
    """The task called ``name``.

    Raises:
        SettingError: if there is none.
    """
    if name not in TASKS:
        raise unknown_choice("data.task", name, TASKS)
    return TASKS[name]
