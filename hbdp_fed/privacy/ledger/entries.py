"""What a ledger holds: a hospital's plan, its charges, its refusals."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from hbdp_fed.privacy.history import check_delta, check_mechanism
from hbdp_fed.types import UNITS, HospitalPlan, Unit

RequestKind = Literal["train", "probe"]


@dataclass(frozen=True)
class PlanEntry:
    """What a hospital agreed to before training. It has one plan, before its first charge.

    Attributes:
        hospital: Its name.
        records: How many it holds, at least 0.
        noise_multiplier: sigma, at least 0 and finite.
        max_grad_norm: The clipping norm, positive; ``inf`` does not clip.
        sample_rate: q in (0, 1].
        steps_planned: T, at least 1, over all rounds and probes.
        eps_planned: What T steps cost, at least 0; ``inf`` without noise.
        delta: In (0, 1).
        accountant: By which epsilon is counted.
        unit: Whom epsilon is for: ``record`` or ``patient``. None is a plan from when there were records alone, which
            does not say.
        patients: How many patients the records are of, at least 1, where these are the units; else None.

    Raises:
        ValueError: naming the figure that cannot be.
    """

    hospital: str
    records: int
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps_planned: int
    eps_planned: float
    delta: float
    accountant: str
    unit: Unit | None = None
    patients: int | None = None

    @property
    def per(self) -> Unit:
        """Whom epsilon is for, of an old plan, too."""
        return self.unit or "record"

    @classmethod
    def of(cls, plan: HospitalPlan, *, epsilon: float, delta: float, accountant: str) -> PlanEntry:
        """The entry of a plan whose steps cost ``epsilon`` at ``delta``, by that accountant."""
        mechanism = plan.mechanism
        return cls(
            hospital=plan.name,
            records=plan.num_records,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.max_grad_norm,
            sample_rate=mechanism.sample_rate,
            steps_planned=mechanism.steps,
            eps_planned=epsilon,
            delta=delta,
            accountant=accountant,
            unit=plan.unit,
            patients=None if plan.patients is None else plan.patients.patients,
        )

    def __post_init__(self) -> None:
        _settle(self)
        check_mechanism(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=self.steps_planned)
        check_delta(self.delta)
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, got {self.max_grad_norm}")
        if (self.unit == "patient") != bool(self.patients):
            raise ValueError(f"patients must be at least 1 where they are the unit, and else None, got {self.patients}")


@dataclass(frozen=True)
class ChargeEntry:
    """What one computation of a hospital cost, whether or not its answer arrived.

    Attributes:
        hospital: Its name.
        round: At least 0; probes count on after the last training round.
        kind: ``train`` or ``probe``. In the file this is ``request``, because there ``kind`` is the line's own.
        noise_id: Identifies the noise stream. The same text means the same noise to the last bit, hence a repetition
            that tells nobody anything new and costs nothing. Noise that is never the same twice has its own each time.
        steps: Of this computation, at least 0.
        steps_spent: Of the hospital so far, these included.
        eps_spent: What ``steps_spent`` steps cost, at least 0; ``inf`` without noise.
        delivered: Whether the answer arrived. A lost one was computed, may have been seen, and is charged all the same.

    Raises:
        ValueError: naming the figure that cannot be.
    """

    hospital: str
    round: int
    kind: RequestKind
    noise_id: str
    steps: int
    steps_spent: int
    eps_spent: float
    delivered: bool

    def __post_init__(self) -> None:
        _settle(self)


@dataclass(frozen=True)
class RefusalEntry:
    """A hospital's no.

    Attributes:
        hospital: Its name.
        round: The round that it refused; None for the whole federation.
        reason: Why, in words.

    Raises:
        ValueError: naming what cannot be.
    """

    hospital: str
    round: int | None
    reason: str

    def __post_init__(self) -> None:
        _settle(self)


Entry = PlanEntry | ChargeEntry | RefusalEntry

KINDS: Mapping[str, type[Entry]] = {"plan": PlanEntry, "charge": ChargeEntry, "refusal": RefusalEntry}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be text that is not empty, got {value!r}")
    return value


def _unit(value: Any) -> str:
    if value not in UNITS:
        raise ValueError(f"must be one of: {', '.join(UNITS)}; got {value!r}")
    return str(value)


def _request_kind(value: Any) -> str:
    if value not in ("train", "probe"):
        raise ValueError(f"must be train or probe, got {value!r}")
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 0:
        raise ValueError(f"must be a whole number of at least 0, got {value!r}")
    return operator.index(value)


def _amount(value: Any) -> float:
    # "inf" is how an infinite figure stands in the file.
    number = math.nan if isinstance(value, bool) or (isinstance(value, str) and value != "inf") else float(value)
    if not number >= 0:
        raise ValueError(f"must be a number of at least 0 (or inf), got {value!r}")
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "RequestKind": _request_kind,
    "Unit | None": lambda value: None if value is None else _unit(value),
    "int": _whole,
    "int | None": lambda value: None if value is None else _whole(value),
    "float": _amount,
    "bool": _flag,
}
"""By a field's annotation, what makes a value of it."""


def _settle(entry: Entry) -> None:
    """Turn the entry's values into the types that are written: an epsilon of 1 and one of 1.0 have the same hash."""
    for item in fields(entry):
        try:
            value = _READERS[str(item.type)](getattr(entry, item.name))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{item.name} {error}") from None
        object.__setattr__(entry, item.name, value)
