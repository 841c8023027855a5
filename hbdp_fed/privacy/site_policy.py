"""What a hospital insists on before it takes part in a federation, and what it lets out beside its noised updates."""

from __future__ import annotations

from dataclasses import dataclass

MAY_LEAVE = ("records", "records_seen", "loss", "clipped_share", "noise_to_resolution", "seconds")
"""Figures of a round that a hospital may tell besides its update, if its policy names them. The differential privacy of
the update covers none of them but ``noise_to_resolution``, a function of noisy sums alone."""


@dataclass(frozen=True)
class Terms:
    """What a federation asks of a hospital, as the hospital itself works it out.

    Attributes:
        epsilon: What the whole plan costs; ``inf`` without noise.
        records: How many records the hospital holds.
        task: What is to be trained.
        model: The model's name in the registry, with the net after a dot where the name stands for many
            (``monai.DenseNet121``); None where nobody has said.
        secure_noise: Whether the noise comes from a generator that nobody can repeat.
    """

    epsilon: float
    records: int
    task: str
    model: str | None = None
    secure_noise: bool = True


@dataclass(frozen=True)
class SitePolicy:
    """The conditions on which a hospital takes part.

    Attributes:
        highest_epsilon: Its ceiling for the whole plan's epsilon, positive; ``inf`` accepts any.
        lowest_records: With fewer records than these, at least 0, it stays away.
        allowed_tasks: Names of tasks. None are allowed where there are none.
        allowed_models: Names of models; None allows all. A name allows all nets that it stands for.
        secure_noise: Whether it insists on noise that nobody can repeat.
        tamper_check: Whether it looks for changes of the model that no honest training makes.
        screening: Whether it tries every model on reference images of its own.
        may_leave: Which figures of :data:`MAY_LEAVE` it tells.

    Raises:
        ValueError: naming the condition that cannot be.
    """

    highest_epsilon: float
    lowest_records: int
    allowed_tasks: tuple[str, ...]
    allowed_models: tuple[str, ...] | None = None
    secure_noise: bool = False
    tamper_check: bool = True
    screening: bool = False
    may_leave: tuple[str, ...] = MAY_LEAVE

    def __post_init__(self) -> None:
        if not self.highest_epsilon > 0:
            raise ValueError(f"highest_epsilon must be positive (or inf), got {self.highest_epsilon}")
        if self.lowest_records < 0:
            raise ValueError(f"lowest_records must be at least 0, got {self.lowest_records}")
        unknown = [name for name in self.may_leave if name not in MAY_LEAVE]
        if unknown:
            raise ValueError(f"may_leave: {', '.join(unknown)} is none of {', '.join(MAY_LEAVE)}")

    def refusal(self, terms: Terms) -> str | None:
        """Why a hospital with this policy does not take part, every reason with what it has and what it asks.

        Returns:
            One line, or None if it takes part.
        """
        reasons = []
        if not terms.epsilon <= self.highest_epsilon:  # so that NaN is refused
            planned, ceiling = _told_apart(terms.epsilon, self.highest_epsilon)
            reasons.append(f"the plan's epsilon {planned} is above the ceiling of {ceiling}")
        if terms.records < self.lowest_records:
            reasons.append(f"{terms.records} records are fewer than the least of {self.lowest_records}")
        if terms.task not in self.allowed_tasks:
            reasons.append(f"the task '{terms.task}' is not allowed, only: {_listed(self.allowed_tasks)}")
        names = {terms.model, (terms.model or "").partition(".")[0]}
        if self.allowed_models is not None and names.isdisjoint(self.allowed_models):
            reasons.append(f"the model '{terms.model}' is not allowed, only: {_listed(self.allowed_models)}")
        if self.secure_noise and not terms.secure_noise:
            reasons.append("the noise could be repeated by whoever knows the seed; only secure noise is allowed")
        return "; ".join(reasons) or None

    @property
    def withheld(self) -> tuple[str, ...]:
        """The figures that stay at the hospital."""
        return tuple(name for name in MAY_LEAVE if name not in self.may_leave)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _told_apart(value: float, other: float) -> tuple[str, str]:
    """Two numbers, short if they can be told apart like that."""
    short = f"{value:g}", f"{other:g}"
    return short if short[0] != short[1] else (repr(float(value)), repr(float(other)))
