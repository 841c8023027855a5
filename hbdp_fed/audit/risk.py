"""From reconstructions and the truth to the figures of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit.baselines import guess
from hbdp_fed.audit.matching import match
from hbdp_fed.audit.similarity import pairwise_ssim, psnr
from hbdp_fed.strict_json import to_plain
from hbdp_fed.types import Reconstruction, Surface

SSIM_THRESHOLD = 0.8
"""Above this a reconstruction shows the patient's image rather than an image of its kind."""

CRITERION = (
    f"SSIM > {SSIM_THRESHOLD:g} with the original, and more than the mean public image and every public image reach; "
    "reconstructions matched one to one"
)


@dataclass(frozen=True)
class ProbeOutcome:
    """What one attack on one hospital's batch came to, record by record.

    Attributes:
        hospital: Whose batch.
        round: Of the observation.
        reconstruction: int64 (N,), which reconstruction was matched with each record; -1 for none.
        ssim: float32 (N,), with that reconstruction; NaN for none.
        psnr: float32 (N,), in dB; NaN for none.
        baseline: float32 (N,), the best guess's SSIM.
        nearest_public: int64 (N,), the public image with the highest SSIM.
        success: bool (N,).
        view: int64 (N,), which of the record's views the other fields are about: the one that was rebuilt best.
        control_success: bool (Nc,), the same for the control records, which were not in the batch; may be empty.
        details: The attack's own figures.
    """

    hospital: str
    round: int
    reconstruction: Tensor
    ssim: Tensor
    psnr: Tensor
    baseline: Tensor
    nearest_public: Tensor
    success: Tensor
    view: Tensor
    control_success: Tensor
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackFigures:
    """An attack's entry in a run's summary. None stands where there was nothing to measure.

    Attributes:
        name: The attack.
        surface: What it saw.
        round: The round it saw; None where several are pooled.
        rounds: All rounds that are pooled, ascending.
        records: How many records the attacked batches held.
        reconstructed: How many of them got a reconstruction at all.
        success_rate: Successes over records.
        success_rate_ci95: Wilson's interval for that (Wilson 1927). It treats records as independent.
        criterion: What counts as a success, in words.
        ssim_mean: Over the records that got a reconstruction.
        ssim_max: The same.
        psnr_max: The same, in dB; may be infinite.
        baseline_success_rate: The share of records of which a guess alone exceeds the threshold.
        control_success_rate: What the same reconstructions score against records that were not in the batch: the
            criterion's false alarms. A success rate within reach of it shows no leak. None without control records.
        share: Mean part of a record's gradient norm that the planted layer took, as the attack measured it; None for
            attacks without one.
        settings: The attack's other figures, averaged over the probes.
    """

    name: str
    surface: Surface
    round: int | None
    rounds: tuple[int, ...]
    records: int
    reconstructed: int
    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    criterion: str
    ssim_mean: float | None
    ssim_max: float | None
    psnr_max: float | None
    baseline_success_rate: float | None
    control_success_rate: float | None
    share: float | None
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Comparison:
    """Reconstructions matched with records; the fields are those of :class:`ProbeOutcome`."""

    reconstruction: Tensor
    ssim: Tensor
    psnr: Tensor
    baseline: Tensor
    nearest_public: Tensor
    success: Tensor
    view: Tensor


def audit_probe(
    reconstruction: Reconstruction,
    originals: Tensor,
    public: Tensor,
    *,
    hospital: str,
    round: int,
    controls: Tensor | None = None,
    views: int = 1,
) -> ProbeOutcome:
    """Hold a reconstruction against the truth.

    Args:
        reconstruction: What the attack claims.
        originals: float (N * K, C, H, W) in [0, 1], the records that were in the batch, as the model saw them: rows
            r * K to r * K + K - 1 hold record r's K views. N may be 0.
        public: float (P, C, H, W) in [0, 1], the images that the adversary had anyway.
        hospital: Whose batch.
        round: Of the observation.
        controls: float (Nc * K, C, H, W) in [0, 1], private records that were not in the batch, best about as many and
            in as many views: what they score is what chance and a smooth guess score.
        views: K, at least 1. A patient is recognised in any view: a record counts by the one that was rebuilt best.
    """
    found = _best_views(_compare(reconstruction.images, originals, public), views)
    control = _best_views(
        _compare(reconstruction.images, originals[:0] if controls is None else controls, public), views
    )
    return ProbeOutcome(
        hospital=hospital,
        round=round,
        reconstruction=found.reconstruction,
        ssim=found.ssim,
        psnr=found.psnr,
        baseline=found.baseline,
        nearest_public=found.nearest_public,
        success=found.success,
        view=found.view,
        control_success=control.success,
        details=dict(reconstruction.details),
    )


def _compare(reconstructions: Tensor, records: Tensor, public: Tensor) -> _Comparison:
    similarity = pairwise_ssim(reconstructions, records)
    matching = match(similarity)
    baselines = guess(records, public)
    chosen = torch.full((len(records),), -1, dtype=torch.int64)
    chosen[matching.records] = matching.reconstructions
    ssim = torch.full((len(records),), math.nan)
    ssim[matching.records] = similarity[matching.reconstructions, matching.records]
    signal_to_noise = torch.full((len(records),), math.nan)
    signal_to_noise[matching.records] = psnr(reconstructions[matching.reconstructions], records[matching.records])
    return _Comparison(
        reconstruction=chosen,
        ssim=ssim,
        psnr=signal_to_noise,
        baseline=baselines.best,
        nearest_public=baselines.nearest_index,
        # A comparison with NaN is false: a record without a reconstruction is no success.
        success=(ssim > SSIM_THRESHOLD) & (ssim > baselines.best),
        view=torch.zeros(len(records), dtype=torch.int64),
    )


def _best_views(comparison: _Comparison, views: int) -> _Comparison:
    """From a comparison of every view (N * K rows) to one of every record: successes first, then by SSIM."""
    if views == 1:
        return comparison
    rank = comparison.success.float() * 10 + comparison.ssim.nan_to_num(nan=-2.0)
    view = rank.view(-1, views).argmax(dim=1)
    rows = torch.arange(len(view)) * views + view
    chosen = {name: value[rows] for name, value in vars(comparison).items()}
    return _Comparison(**{**chosen, "view": view})


def attack_figures(name: str, surface: Surface, outcomes: Sequence[ProbeOutcome]) -> AttackFigures:
    """The figures of one attack, pooled over probes and hospitals; every record counts the same.

    Args:
        name: The attack.
        surface: What it saw.
        outcomes: Of all its probes; may be empty.
    """
    rounds = tuple(sorted({outcome.round for outcome in outcomes}))
    success = _pooled([outcome.success for outcome in outcomes])
    control = _pooled([outcome.control_success for outcome in outcomes])
    baseline = _pooled([outcome.baseline for outcome in outcomes])
    ssim = _pooled([outcome.ssim for outcome in outcomes])
    matched = ~ssim.isnan()
    signal_to_noise = _pooled([outcome.psnr for outcome in outcomes])[matched]
    ssim = ssim[matched]
    records, reconstructed, successes = len(success), len(ssim), int(success.sum())
    keys = sorted({key for outcome in outcomes for key in outcome.details})
    details = {key: _mean([outcome.details[key] for outcome in outcomes if key in outcome.details]) for key in keys}
    share = details.pop("share", None)
    return AttackFigures(
        name=name,
        surface=surface,
        round=rounds[0] if len(rounds) == 1 else None,
        rounds=rounds,
        records=records,
        reconstructed=reconstructed,
        success_rate=successes / records if records else None,
        success_rate_ci95=wilson_interval(successes, records),
        criterion=CRITERION,
        ssim_mean=float(ssim.mean()) if reconstructed else None,
        ssim_max=float(ssim.max()) if reconstructed else None,
        psnr_max=float(signal_to_noise.max()) if reconstructed else None,
        baseline_success_rate=float((baseline > SSIM_THRESHOLD).double().mean()) if records else None,
        control_success_rate=float(control.double().mean()) if len(control) else None,
        share=share,
        settings=details,
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval for a proportion (Wilson 1927); None without trials."""
    if trials == 0:
        return None
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def risk_summary(
    attacks: Mapping[str, Sequence[AttackFigures]],
    bounds: Mapping[str, float | None],
    *,
    prior: float | None = None,
) -> dict[str, dict[str, Any]]:
    """The ``risk`` entry of a run's summary, ready for strict JSON (infinities are ``"inf"``).

    Args:
        attacks: Figures by threat model; a threat model without attacks may be left out.
        bounds: The theoretical bound by threat model, a probability; None or left out where theory gives none.
        prior: What the bounds start from: the probability that a guess succeeds without any release.

    Returns:
        ``{"worst_case": {"bound": ..., "prior": ..., "attacks": [...]}, "relaxed": {...}, "realistic": {...}}``; the
        prior is None where there is no bound.

    Raises:
        ValueError: for a threat model that does not exist, or a bound outside [0, 1].
    """
    unknown = sorted((attacks.keys() | bounds.keys()) - set(THREAT_MODELS))
    if unknown:
        raise ValueError(f"no such threat model: {', '.join(unknown)}")
    for name, bound in bounds.items():
        if bound is not None and not 0 <= bound <= 1:
            raise ValueError(f"the bound of {name} must be a probability, got {bound}")
    return {
        name: {
            "bound": bounds.get(name),
            "prior": None if bounds.get(name) is None else prior,
            "attacks": [to_plain(figures) for figures in attacks.get(name, ())],
        }
        for name in THREAT_MODELS
    }


def _pooled(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
