"""Two sides of finished runs: settings, machines, utility, privacy, risk, time and participation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit import wording
from hbdp_fed.audit.comparison.attacks import AttackPair, attack_pairs
from hbdp_fed.audit.comparison.judged import Judgement, Utility, compare_utility, obstacle, utility_apart
from hbdp_fed.audit.comparison.sides import Sided, differing, flat, sided

_PLACES = ("run_dir", "resume", "data.cache", "data.recipes")
"""Settings that say where a run and its records are, or what would have been taken for another budget."""

_PRIVACY = (
    "num_records", "noise_multiplier", "eps_rdp", "eps_tight", "worst_case_bound", "relaxed_bound",
)  # fmt: skip
_PARTICIPATION = ("expected", "completed", "failed", "offline", "late")
_TIMES = ("total_s", "startup_s", "rounds_s", "client_compute_s", "attack_s", "simulated_s", "engine_efficiency")


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left.

    Attributes:
        folder: Where, as a person named it.
        config: Its settings as it wrote them down, in sections.
        environment: Versions, machine and commit; empty where it left none.
        summary: Its figures.
        judgement: What its model said of each test record; None where that cannot be read.
        unread: Why not, in words.
    """

    folder: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    summary: Mapping[str, Any]
    judgement: Judgement | None = None
    unread: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that took effect, by full name: what a recipe filled in stands in the place of null."""
        own = {name: value for name, value in flat(self.config).items() if not _is_place(name)}
        used = self.summary.get("hyperparameters") or {}
        return {**own, **{f"training.{name}": value for name, value in flat(used).items()}}


def _is_place(name: str) -> bool:
    return any(name == place or name.startswith((f"{place}.", f"{place}[")) for place in _PLACES)


@dataclass(frozen=True)
class RunComparison:
    """Two sides beside each other. A side has one run or several, as a rule one a seed.

    Attributes:
        first: The first side's folders.
        second: The second side's.
        subject: Task and data set of both, and on how many test records they were judged.
        settings: What differs among the settings that took effect.
        environment: What differs among versions and machines.
        utility: Every figure on the test split.
        unpaired: Why there are no paired differences; None where there are.
        privacy: By hospital that both sides have: records, noise, epsilons and bounds.
        hospitals: Hospitals of one side alone: the first side's, and the second's.
        bounds: By threat model, the largest bound of each run.
        risk: Every attack.
        participation: Answers that were expected, came and failed.
        time: Seconds, and how busy the engine was.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    subject: str
    settings: tuple[Sided, ...]
    environment: tuple[Sided, ...]
    utility: tuple[Utility, ...]
    unpaired: str | None
    privacy: Mapping[str, tuple[Sided, ...]]
    hospitals: tuple[tuple[str, ...], tuple[str, ...]]
    bounds: tuple[Sided, ...]
    risk: tuple[AttackPair, ...]
    participation: tuple[Sided, ...]
    time: tuple[Sided, ...]


def compare_runs(
    first: Sequence[FinishedRun], second: Sequence[FinishedRun], *, replicates: int, generator: torch.Generator
) -> RunComparison:
    """Hold two sides beside each other.

    Args:
        first: At least one run.
        second: At least one run.
        replicates: Resamples of the paired bootstrap, at least 1.
        generator: Of its draws, on the CPU.
    """
    before, after = ([run.summary for run in side] for side in (first, second))
    utility, unpaired = _utility(first, second, replicates=replicates, generator=generator)
    return RunComparison(
        first=tuple(run.folder for run in first),
        second=tuple(run.folder for run in second),
        subject=_subject(first, second, paired=unpaired is None),
        settings=differing([run.settings for run in first], [run.settings for run in second]),
        environment=differing([flat(run.environment) for run in first], [flat(run.environment) for run in second]),
        utility=utility,
        unpaired=unpaired,
        privacy=_privacy(before, after),
        hospitals=_unshared(before, after),
        bounds=tuple(sided([_bounds(summary) for summary in before], [_bounds(summary) for summary in after])),
        risk=attack_pairs([summary["risk"] for summary in before], [summary["risk"] for summary in after]),
        participation=_chosen(before, after, "participation", _PARTICIPATION),
        time=_chosen(before, after, "time", _TIMES),
    )


def _utility(
    first: Sequence[FinishedRun], second: Sequence[FinishedRun], *, replicates: int, generator: torch.Generator
) -> tuple[tuple[Utility, ...], str | None]:
    before, after = ([run.summary for run in side] for side in (first, second))
    unread = next((run.unread for run in (*first, *second) if run.judgement is None), None)
    if unread is not None:
        return utility_apart(before, after), unread
    sides = [[(run.summary, run.judgement) for run in side if run.judgement is not None] for side in (first, second)]
    together = [*sides[0], *sides[1]]
    reason = obstacle([summary for summary, _ in together], [judgement for _, judgement in together])
    if reason is not None:
        return utility_apart(before, after), reason
    return compare_utility(sides[0], sides[1], replicates=replicates, generator=generator), None


def _subject(first: Sequence[FinishedRun], second: Sequence[FinishedRun], *, paired: bool) -> str:
    """How many runs are compared and, where it is the same for all, on how many records of how many patients."""
    sides = f"{wording.counted(len(first), 'run')} against {wording.counted(len(second), 'run')}"
    names = list(dict.fromkeys(str(run.summary["dataset"]) for run in (*first, *second)))
    judgement = first[0].judgement
    if not paired or judgement is None:
        return f"{' and '.join(names)}: {sides}"
    groups = judgement.records.get("groups")
    word = wording.group_word(first[0].summary.get("partition")) or "group"
    of = "" if groups is None else f" of {wording.counted(len(set(groups.tolist())), word)}"
    records = wording.counted(len(next(iter(judgement.evidence.values()))), "record")
    return f"{names[0]}: {sides} on {records}{of}"


def _hospitals(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(entry["name"]): entry for entry in summary["privacy"]["hospitals"]}


def _privacy(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Sided, ...]]:
    sides = [[_hospitals(summary) for summary in side] for side in (before, after)]
    shared = [name for name in sides[0][0] if all(name in run for side in sides for run in side)]
    return {
        name: tuple(
            sided(*([{key: run[name][key] for key in _PRIVACY if key in run[name]} for run in s] for s in sides))
        )
        for name in shared
    }


def _unshared(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = [dict.fromkeys(name for summary in side for name in _hospitals(summary)) for side in (before, after)]
    return tuple(n for n in names[0] if n not in names[1]), tuple(n for n in names[1] if n not in names[0])


def _bounds(summary: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: entry["bound"] for name, entry in summary["risk"].items() if name in THREAT_MODELS}


def _chosen(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], section: str, names: Sequence[str]
) -> tuple[Sided, ...]:
    def own(summary: Mapping[str, Any]) -> dict[str, Any]:
        known = summary.get(section) or {}
        return {name: known[name] for name in names if name in known}

    return tuple(sided([own(summary) for summary in before], [own(summary) for summary in after]))
