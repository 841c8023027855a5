"""The measured frontier: what a sweep over budgets found of utility and of attacks, as frozen evidence.

A sweep's file says more than is read here; what is read is checked, so that a figure of the wrong kind is an error and
not a recommendation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.planning.reading import read_as
from hbdp_fed.planning.sweep_content import (
    AttackContent,
    BudgetContent,
    DifferenceContent,
    RiskContent,
    SweepContent,
    UtilityContent,
)

RECONSTRUCTION = "reconstruction"
_CLIENTS = "clients"


@dataclass(frozen=True)
class Loss:
    """What a budget costs in utility against the control: positive is worse, whichever way the metric runs.

    Attributes:
        mean: Over seeds; None where there is no control to compare with.
        lower: Lower end of its two-sided 95% interval.
        upper: Upper end.
        seeds: Over how many.
    """

    mean: float | None = None
    lower: float | None = None
    upper: float | None = None
    seeds: int = 0


@dataclass(frozen=True)
class AttackEvidence:
    """One attack at one budget, over all seeds.

    Attributes:
        name: The attack's.
        records: How many were attacked.
        successes: How many of them succeeded.
        rate: The share of them.
        lower: Lower end of its 95% interval.
        upper: Upper end.
        baseline: What a guess from public images scores.
        control: What the same reconstructions score against records that were not there.
        criterion: When a record counts.
    """

    name: str
    records: int
    successes: int
    rate: float | None
    lower: float | None
    upper: float | None
    baseline: float | None = None
    control: float | None = None
    criterion: str | None = None


@dataclass(frozen=True)
class BudgetEvidence:
    """What was measured at one budget.

    Attributes:
        eps: The budget.
        is_control: Whether the others' utility is compared with this one's.
        seeds: How many runs.
        utility: Mean of the metric; None where it does not exist.
        utility_sd: Its standard deviation over seeds.
        loss: Against the control.
        attacks: By threat model, the reconstruction attacks.
        worst_case_bound: The largest bound of any hospital; None where the file has none.
    """

    eps: float
    is_control: bool
    seeds: int
    utility: float | None
    utility_sd: float | None
    loss: Loss
    attacks: Mapping[str, tuple[AttackEvidence, ...]]
    worst_case_bound: float | None


@dataclass(frozen=True)
class Frontier:
    """One group of a sweep: the same federation under several budgets.

    Attributes:
        name: The sweep's.
        dataset: What was trained on.
        task: What for.
        model: With what.
        clients: How many hospitals.
        values: What sets this group apart from the sweep's others.
        metric: By which utility is judged.
        lower_is_better: Which way it runs.
        control: The budget that the others are compared with; None without one.
        budgets: Ascending, ``inf`` last.
        incomplete: How many runs of the sweep failed or are still to come.
    """

    name: str
    dataset: str | None
    task: str | None
    model: str | None
    clients: int | None
    values: Mapping[str, Any]
    metric: str
    lower_is_better: bool
    control: float | None
    budgets: tuple[BudgetEvidence, ...]
    incomplete: int = 0


@dataclass(frozen=True)
class SweepFile:
    """A sweep's file, read and checked.

    Attributes:
        metrics: What utility was measured in; the first of ``selection``, or of these, decides unless another is named.
        groups: What sets each group apart.
    """

    content: SweepContent

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return self.content.metrics

    @property
    def deciding(self) -> str:
        """The metric that chose the released rounds."""
        known = (*self.content.selection, *self.content.metrics)
        if not known:
            raise SettingError("metrics", "the sweep names no metric")
        return known[0]

    @property
    def groups(self) -> tuple[Mapping[str, Any], ...]:
        """What sets each group apart."""
        return tuple(group.values for group in self.content.groups)

    def clients(self, group: int) -> int | None:
        """How many hospitals a group has, by its own values, which are as they were typed, or else by the sweep's."""
        typed = str(self.content.groups[group].values.get(_CLIENTS))
        return int(typed) if typed.isdecimal() else self.content.clients

    def frontier(self, group: int, *, metric: str, lower_is_better: bool) -> Frontier:
        """One group as evidence.

        Args:
            group: Its place.
            metric: By which utility is judged.
            lower_is_better: Which way the metric runs.

        Raises:
            SettingError: if the group is empty or has no such metric.
        """
        content, chosen = self.content, self.content.groups[group]
        if not chosen.budgets:
            raise SettingError(f"groups[{group}].budgets", "must have at least one entry: no run of it is finished")
        measured = {name for budget in chosen.budgets for name in budget.utility}
        if metric not in measured:
            raise unknown_choice("policy.metric", metric, measured)
        budgets = sorted(chosen.budgets, key=lambda budget: budget.eps)
        return Frontier(
            name=content.name,
            dataset=content.dataset,
            task=content.task,
            model=content.model,
            clients=self.clients(group),
            values=chosen.values,
            metric=metric,
            lower_is_better=lower_is_better,
            control=content.control,
            budgets=tuple(
                _evidence(budget, metric, lower_is_better=lower_is_better, control=content.control)
                for budget in budgets
            ),
            incomplete=content.pending + len(content.failures),
        )


def read_sweep(value: Any) -> SweepFile:
    """A sweep's file from plain mappings and lists.

    Raises:
        SettingError: about the first thing that is wrong, naming its place.
    """
    if not isinstance(value, Mapping) or value.get("kind") != "sweep":
        raise SettingError("kind", "must be 'sweep': this is no sweep's file")
    content = read_as(SweepContent, value)
    if not content.groups:
        raise SettingError("groups", "must have at least one entry: the sweep finished no run")
    for place, group in enumerate(content.groups):
        budgets = [budget.eps for budget in group.budgets]
        if len(set(budgets)) < len(budgets):
            raise SettingError(f"groups[{place}].budgets", "must have every budget once")
    return SweepFile(content)


def _evidence(budget: BudgetContent, metric: str, *, lower_is_better: bool, control: float | None) -> BudgetEvidence:
    utility = budget.utility.get(metric, UtilityContent())
    bounds = [hospital.bound_worst_case for hospital in budget.hospitals]
    known = [bound for bound in bounds if bound is not None]
    whole = budget.risk.get("worst_case", RiskContent()).bound
    return BudgetEvidence(
        eps=budget.eps,
        is_control=control is not None and budget.eps == control,
        seeds=len(budget.seeds),
        utility=_real(utility.mean),
        utility_sd=_real(utility.sd),
        loss=_loss(utility.difference, lower_is_better=lower_is_better, seeds=len(budget.seeds)),
        attacks={
            name: tuple(_attack(attack) for attack in risk.attacks if attack.kind == RECONSTRUCTION)
            for name, risk in budget.risk.items()
        },
        worst_case_bound=max(known) if known else _real(whole),
    )


def _loss(difference: DifferenceContent | None, *, lower_is_better: bool, seeds: int) -> Loss:
    if difference is None:
        return Loss(seeds=seeds)
    ends = _real(difference.low), _real(difference.high)
    mean = _real(difference.mean)
    if lower_is_better:
        return Loss(mean, ends[0], ends[1], seeds)
    return Loss(_minus(mean), _minus(ends[1]), _minus(ends[0]), seeds)


def _attack(attack: AttackContent) -> AttackEvidence:
    lower, upper = attack.success_rate_ci95 or (None, None)
    records, rate = attack.records or 0, _real(attack.success_rate)
    successes = _real(attack.successes)
    if successes is None:
        successes = 0.0 if rate is None else rate * records
    return AttackEvidence(
        name=attack.name,
        records=records,
        successes=round(successes),
        rate=rate,
        lower=_real(lower),
        upper=_real(upper),
        baseline=_real(attack.baseline_success_rate),
        control=_real(attack.control_success_rate),
        criterion=attack.criterion,
    )


def _real(value: float | None) -> float | None:
    """The figure, None for one that does not exist."""
    return None if value is None or not math.isfinite(value) else value


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value
