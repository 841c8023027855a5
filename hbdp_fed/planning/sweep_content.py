"""What is read of a sweep's file, which says more: each part with the fields that a recommendation rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from hbdp_fed.planning.reading import Number, PositiveOrInfinite, Section


class Open(Section):
    """A part of a file of which not everything is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DifferenceContent(Open):
    """A budget's figure less the control's."""

    mean: Number | None = None
    low: Number | None = None
    high: Number | None = None


class UtilityContent(Open):
    """One metric at one budget."""

    mean: Number | None = None
    sd: Number | None = None
    difference: DifferenceContent | None = None


class AttackContent(Open):
    """One attack at one budget, over all seeds."""

    name: str
    kind: str
    records: int | None = None
    successes: Number | None = None
    probes: int | None = None
    success_rate: Number | None = None
    success_rate_ci95: tuple[Number | None, Number | None] | None = None
    criterion: str | None = None
    baseline_success_rate: Number | None = None
    control_success_rate: Number | None = None
    share: Number | None = None


class RiskContent(Open):
    """One threat model at one budget."""

    bound: Number | None = None
    attacks: tuple[AttackContent, ...] = ()


class HospitalContent(Open):
    """One hospital at one budget."""

    name: str
    bound_worst_case: Number | None = None


class BudgetContent(Open):
    """One budget."""

    eps: PositiveOrInfinite
    seeds: tuple[int, ...] = ()
    utility: Mapping[str, UtilityContent] = Field(default_factory=dict)
    risk: Mapping[str, RiskContent] = Field(default_factory=dict)
    hospitals: tuple[HospitalContent, ...] = ()


class GroupContent(Open):
    """One combination of what varies besides budgets."""

    values: Mapping[str, Any] = Field(default_factory=dict)
    budgets: tuple[BudgetContent, ...]


class SweepContent(Open):
    """The whole file."""

    name: str = ""
    task: str | None = None
    dataset: str | None = None
    model: str | None = None
    clients: int | None = None
    metrics: tuple[str, ...] = ()
    selection: tuple[str, ...] = ()
    control: PositiveOrInfinite | None = None
    groups: tuple[GroupContent, ...]
    pending: int = 0
    failures: tuple[Any, ...] = ()
