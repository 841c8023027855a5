"""What a hospital insists on before it takes part in a federation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SitePolicy:
    """The conditions on which a hospital takes part.

    Attributes:
        highest_epsilon: Its ceiling for the whole plan's epsilon, positive; ``inf`` accepts any.
        lowest_records: With fewer records than these, at least 0, it stays away.
        allowed_tasks: Names of tasks. None are allowed where there are none.

    Raises:
        ValueError: naming the condition that cannot be.
    """

    highest_epsilon: float
    lowest_records: int
    allowed_tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.highest_epsilon > 0:
            raise ValueError(f"highest_epsilon must be positive (or inf), got {self.highest_epsilon}")
        if self.lowest_records < 0:
            raise ValueError(f"lowest_records must be at least 0, got {self.lowest_records}")

    def refusal(self, plan_eps: float, records: int, task: str) -> str | None:
        """Why a hospital with this policy does not take part, every reason with what it has and what it asks.

        Args:
            plan_eps: What the whole plan costs; ``inf`` without noise.
            records: How many it holds.
            task: What is to be trained.

        Returns:
            One line, or None if it takes part.
        """
        reasons = []
        if not plan_eps <= self.highest_epsilon:  # so that NaN is refused
            planned, ceiling = _told_apart(plan_eps, self.highest_epsilon)
            reasons.append(f"the plan's epsilon {planned} is above the ceiling of {ceiling}")
        if records < self.lowest_records:
            reasons.append(f"{records} records are fewer than the least of {self.lowest_records}")
        if task not in self.allowed_tasks:
            allowed = ", ".join(self.allowed_tasks) or "none"
            reasons.append(f"the task '{task}' is not allowed, only: {allowed}")
        return "; ".join(reasons) or None


def _told_apart(value: float, other: float) -> tuple[str, str]:
    """Two numbers, short if they can be told apart like that."""
    short = f"{value:g}", f"{other:g}"
    return short if short[0] != short[1] else (repr(float(value)), repr(float(other)))
