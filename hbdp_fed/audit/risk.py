"""From outcomes to the figures of a report: what an attack came to over all its probes, and a run's ``risk`` entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit.criterion import DEFAULT_CRITERION, Criterion
from hbdp_fed.audit.outcomes import ProbeOutcome
from hbdp_fed.audit.proportions import Cluster, cluster_counts, wilson_of_clusters
from hbdp_fed.strict_json import to_plain
from hbdp_fed.types import Surface


@dataclass(frozen=True, kw_only=True)
class DenoisedFigures:
    """What an attack's reconstructions came to once a denoiser had cleaned them. None: there was nothing to measure.

    Attributes:
        success_rate: As the attack's own.
        success_rate_ci95: As the attack's own.
        ssim_mean: Over the records that got a reconstruction.
        ssim_max: The same.
        ssim_median: Over all records; one without a reconstruction counts as 0.
        ssim_gain: Mean over all records of the SSIM after less the SSIM before, each matched anew.
    """

    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    ssim_mean: float | None
    ssim_max: float | None
    ssim_median: float | None
    ssim_gain: float | None


@dataclass(frozen=True, kw_only=True)
class AttackFigures:
    """A reconstruction attack's entry in a run's summary. None stands where there was nothing to measure.

    Attributes:
        name: The attack.
        kind: What the attack is after, by which readers tell entries apart.
        surface: What it saw.
        round: The round it saw; None where several are pooled.
        rounds: All rounds that are pooled, ascending.
        records: How many records the attacked batches held.
        probes: How many attacked batches held them: the clusters of the interval.
        clusters: Records and successes of each, by which several runs' figures can be pooled.
        reconstructed: How many records got a reconstruction at all.
        success_rate: Successes over records.
        success_rate_ci95: An interval for that in which the records of a probe are no independent trials; at a rate of
            0 or 1, and with a single probe, they are taken for such
            (see :func:`hbdp_fed.audit.proportions.clustered_wilson`).
        criterion: What counts as a success, in words.
        success_rates: The success rate at every threshold of SSIM that was asked for, by the threshold as text; the
            baselines have to be exceeded at each.
        ssim_mean: Over the records that got a reconstruction.
        ssim_max: The same.
        ssim_median: Over all records; one without a reconstruction counts as 0.
        ssim_min: The same.
        psnr_max: Over the records that got a reconstruction, in dB; may be infinite.
        psnr_median: The same.
        mse_median: Over the records that got a reconstruction.
        ncc_max: Over the records that got a reconstruction, where neither image is constant: the correlation of their
            pixels, each image's mean taken off.
        ncc_median: The same.
        baseline_success_rate: The share of records of which a guess from public images alone, the mean one or the
            nearest, exceeds the threshold.
        baselines: Mean SSIM with the records of the mean public image (``mean_image``), of the nearest public image
            (``nearest_public``) and of the nearest image of another patient in the audit (``another_patient``).
        control_success_rate: What the same reconstructions score against records that were not in the batch: the
            criterion's false alarms. A success rate within reach of it shows no leak. None without control records.
        share: Mean part of a record's gradient norm that the planted layer took, as the attack measured it; None for
            attacks without one.
        bound: What theory allows as success rate at most; None where it allows anything.
        bound_prior: The probability that a guess succeeds without any release, which the bound starts from.
        law: What theory says of the errors of such an attack, as a mapping or dataclass of plain figures; None where it
            says nothing.
        settings: The attack's other figures, averaged over the probes.
        denoised: The same reconstructions after a denoiser; None where there was none.
    """

    name: str
    kind: str = "reconstruction"
    surface: Surface
    round: int | None
    rounds: tuple[int, ...]
    records: int
    probes: int
    clusters: tuple[Cluster, ...]
    reconstructed: int
    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    criterion: str
    success_rates: Mapping[str, float | None]
    ssim_mean: float | None
    ssim_max: float | None
    ssim_median: float | None
    ssim_min: float | None
    psnr_max: float | None
    psnr_median: float | None
    mse_median: float | None
    ncc_max: float | None
    ncc_median: float | None
    baseline_success_rate: float | None
    baselines: Mapping[str, float | None]
    control_success_rate: float | None
    share: float | None
    bound: float | None = None
    bound_prior: float | None = None
    law: object | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    denoised: DenoisedFigures | None = None


def attack_figures(
    name: str,
    surface: Surface,
    outcomes: Sequence[ProbeOutcome],
    *,
    criterion: Criterion = DEFAULT_CRITERION,
    bound: float | None = None,
    bound_prior: float | None = None,
    law: object | None = None,
    denoised: Sequence[ProbeOutcome] = (),
) -> AttackFigures:
    """The figures of one attack, pooled over probes and hospitals; every record counts the same.

    Args:
        name: The attack.
        surface: What it saw.
        outcomes: Of all its probes; may be empty.
        criterion: What counts as a success, best as in the audits: they chose each record's view by theirs.
        bound: What theory allows as success rate at most, where it says so.
        bound_prior: What that starts from.
        law: What theory says of the errors, as a mapping or dataclass of plain figures.
        denoised: The same probes' outcomes once a denoiser had cleaned what was rebuilt; empty where there was none.
    """
    rounds = tuple(sorted({outcome.round for outcome in outcomes}))
    above = _pooled(outcomes, lambda outcome: outcome.above_baselines)
    control = _pooled(outcomes, lambda outcome: outcome.control_above_baselines)
    ssim = _pooled(outcomes, lambda outcome: outcome.ssim)
    psnr = _pooled(outcomes, lambda outcome: outcome.psnr)
    ncc = _pooled(outcomes, lambda outcome: outcome.ncc)
    guess = _pooled(outcomes, lambda outcome: outcome.baselines.guess)
    success, clusters = _successes(outcomes, criterion)
    details = _averages([outcome.details for outcome in outcomes])
    share = details.pop("share", None)
    return AttackFigures(
        name=name,
        surface=surface,
        round=rounds[0] if len(rounds) == 1 else None,
        rounds=rounds,
        records=len(success),
        probes=int((_sizes(outcomes) > 0).sum()),
        clusters=clusters,
        reconstructed=int((~ssim.isnan()).sum()),
        success_rate=_over(success, np.mean),
        success_rate_ci95=wilson_of_clusters(clusters),
        criterion=criterion.in_words(),
        success_rates={str(float(level)): _over(above > level, np.mean) for level in criterion.thresholds},
        ssim_mean=_over(ssim, np.mean),
        ssim_max=_over(ssim, np.max),
        ssim_median=_over(ssim.nan_to_num(nan=0.0), np.median),
        ssim_min=_over(ssim.nan_to_num(nan=0.0), np.min),
        psnr_max=_over(psnr, np.max),
        psnr_median=_over(psnr, np.median),
        mse_median=_over(_pooled(outcomes, lambda outcome: outcome.mse), np.median),
        ncc_max=_over(ncc, np.max),
        ncc_median=_over(ncc, np.median),
        baseline_success_rate=_over(guess > criterion.ssim, np.mean),
        baselines={
            "mean_image": _over(_pooled(outcomes, lambda outcome: outcome.baselines.mean_image), np.mean),
            "nearest_public": _over(_pooled(outcomes, lambda outcome: outcome.baselines.nearest), np.mean),
            "another_patient": _over(_pooled(outcomes, lambda outcome: outcome.baselines.other), np.mean),
        },
        control_success_rate=_over(control > criterion.ssim, np.mean),
        share=share,
        bound=bound,
        bound_prior=bound_prior,
        law=law,
        settings=details,
        denoised=_denoised(outcomes, denoised, criterion) if denoised else None,
    )


def _denoised(before: Sequence[ProbeOutcome], after: Sequence[ProbeOutcome], criterion: Criterion) -> DenoisedFigures:
    ssim = _pooled(after, lambda outcome: outcome.ssim)
    success, clusters = _successes(after, criterion)
    every = ssim.nan_to_num(nan=0.0)
    return DenoisedFigures(
        success_rate=_over(success, np.mean),
        success_rate_ci95=wilson_of_clusters(clusters),
        ssim_mean=_over(ssim, np.mean),
        ssim_max=_over(ssim, np.max),
        ssim_median=_over(every, np.median),
        ssim_gain=_over(every - _pooled(before, lambda outcome: outcome.ssim).nan_to_num(nan=0.0), np.mean),
    )


def _successes(outcomes: Sequence[ProbeOutcome], criterion: Criterion) -> tuple[Tensor, tuple[Cluster, ...]]:
    """Which records count as rebuilt, bool (N,), and how many of each probe."""
    success = _pooled(outcomes, lambda outcome: outcome.above_baselines) > criterion.ssim
    probe = torch.arange(len(outcomes)).repeat_interleave(_sizes(outcomes))
    return success, cluster_counts(success, probe)


def _sizes(outcomes: Sequence[ProbeOutcome]) -> Tensor:
    return torch.tensor([len(outcome.success) for outcome in outcomes], dtype=torch.int64)


def risk_summary(
    attacks: Mapping[str, Sequence[Any]],
    bounds: Mapping[str, float | None],
    *,
    prior: float | None = None,
) -> dict[str, dict[str, Any]]:
    """The ``risk`` entry of a run's summary, ready for strict JSON (infinities are ``"inf"``).

    Args:
        attacks: Entries by threat model: :class:`AttackFigures`, or any other dataclass or mapping of an attack of
            another kind. A threat model without attacks may be left out.
        bounds: The theoretical bound by threat model, a probability; None or left out where theory gives none.
        prior: What the bounds start from: the probability that a guess succeeds without any release.

    Returns:
        ``{"worst_case": {"bound": ..., "prior": ..., "attacks": [...]}, "relaxed": {...}, "realistic": {...}}``; the
        prior is None where there is no bound. Every attack has ``above_bound`` besides its own figures: whether all of
        its ``success_rate_ci95`` lies above its ``bound``, which no attack's should; None where it has not both.

    Raises:
        ValueError: for a threat model that does not exist, or a bound outside [0, 1].
    """
    unknown = sorted((attacks.keys() | bounds.keys()) - set(THREAT_MODELS))
    if unknown:
        raise ValueError(f"no such threat model: {', '.join(unknown)}")
    for name, bound in bounds.items():
        _check_bound(name, bound)
    return {
        name: {
            "bound": bounds.get(name),
            "prior": None if bounds.get(name) is None else prior,
            "attacks": [_entry(figures) for figures in attacks.get(name, ())],
        }
        for name in THREAT_MODELS
    }


def _entry(figures: Any) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(figures)
    bound, interval = plain.get("bound"), plain.get("success_rate_ci95")
    _check_bound(str(plain.get("name", "an attack")), bound)
    above = None if bound is None or interval is None else interval[0] > bound
    return {**plain, "above_bound": above}


def _check_bound(name: str, bound: float | None) -> None:
    if bound is not None and not 0 <= bound <= 1:
        raise ValueError(f"the bound of {name} must be a probability, got {bound}")


def _averages(details: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the probes that have it."""
    keys = sorted({key for probe in details for key in probe})
    return {key: float(np.mean([probe[key] for probe in details if key in probe])) for key in keys}


def _pooled(outcomes: Sequence[ProbeOutcome], part: Callable[[ProbeOutcome], Tensor]) -> Tensor:
    return torch.cat([part(outcome) for outcome in outcomes]) if outcomes else torch.zeros(0)


def _over(values: Tensor, reduce: Callable[[NDArray[np.float64]], Any]) -> float | None:
    """``reduce`` of the values that there are: NaN stands for what there is not, and None for what comes of nothing."""
    numbers: NDArray[np.float64] = values.double().numpy()
    present = numbers[~np.isnan(numbers)]
    return float(reduce(present)) if len(present) else None
