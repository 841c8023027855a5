"""How the unprocessed linear probe did, beside the law that says how it must do.

Every record here was drawn by the step that was observed, its factor was granted, and its gradient was clipped. Given
that, its estimate is x + N(0, (sigma ||x||)^2) in every pixel (Ziller et al. 2024, arXiv 2402.12861), and
:class:`hbdp_fed.privacy.image_error.LinearProbe` with one step of sample rate 1 gives the laws of its errors. How often
a record is drawn at all is no part of these figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import t as student
from torch import Tensor

from hbdp_fed.privacy.image_error import LinearProbe

_CENTRAL = (0.025, 0.975)


@dataclass(frozen=True)
class LawFigures:
    """Measured figures of unprocessed estimates, and what the law says of them. None stands for no value.

    Attributes:
        records: How many estimates the figures are over.
        left_out: How many more there were whose gradient was not clipped although there is noise, or whose image is
            black: no law holds for them.
        probes: How many noise vectors the records share. The records of one step share one, up to their norms: their
            errors, each over its own law's mean, are the same number. So this, not ``records``, is the sample's size.
        mse: The mean over records of the mean squared error.
        mse_law: The mean over records of (sigma ||x||)^2, what the law expects.
        mse_ratio: ``mse`` over ``mse_law``; None without noise.
        mse_ratio_ci95: Its interval by the variance between probes (the linearised ratio of cluster totals, Cochran
            1977, chapter 6) and Student's t; None without noise or with fewer than two probes.
        psnr_median: Over the records, in dB at peak 1; infinite where an estimate is exact.
        psnr_median_law: The median over records of each one's median under the law; infinite without noise.
        ncc_median: The same of the zero-mean normalised cross-correlation (Pearson's), over the records whose image
            is not all of one brightness; None if none is.
        ncc_median_law: Its law's.
        within_central_95: The share of records with an MSE within the central 95 % of their own law; None without
            noise. The records of one probe are all within or all without.
    """

    records: int
    left_out: int
    probes: int
    mse: float | None
    mse_law: float | None
    mse_ratio: float | None
    mse_ratio_ci95: tuple[float, float] | None
    psnr_median: float | None
    psnr_median_law: float | None
    ncc_median: float | None
    ncc_median_law: float | None
    within_central_95: float | None


def law_figures(
    unprocessed: Tensor,
    originals: Tensor,
    *,
    noise_multiplier: float | Tensor,
    clipped: Tensor,
    probes: Tensor,
) -> LawFigures:
    """Hold the unprocessed estimates of n records against their laws.

    The law is that of exact arithmetic: noise finer than float32 is drowned by the rounding of what hospitals compute,
    and then the ratio shows by how much.

    Args:
        unprocessed: float (n, C, *spatial), in no range: the i-th is of the i-th original; n may be 0.
        originals: float (n, C, *spatial) in [0, 1].
        noise_multiplier: sigma, at least 0: the noise that was observed over the clipping norm of a record as it counts
            there. A number, or float (n,) where hospitals differ. Either there is noise for all records or for none.
        clipped: bool (n,), whose gradient reached the clipping norm. It plays no part without noise, where every
            estimate is exact.
        probes: int64 (n,), the same number for the records whose estimates come from the same release.

    Raises:
        ValueError: if shapes differ, or only some records have noise.
    """
    _check(unprocessed, originals, clipped, probes)
    x = originals.double().flatten(start_dim=1)
    sigma = torch.as_tensor(noise_multiplier, dtype=torch.float64).expand(len(x))
    if bool((sigma > 0).any()) and not bool((sigma > 0).all()):
        raise ValueError("there must be noise for all records or for none")
    kept = (clipped | (sigma == 0)) & (x != 0).any(dim=1)
    records = _Records(estimates=unprocessed.double().flatten(start_dim=1)[kept], originals=x[kept], sigma=sigma[kept])
    return _figures(records, probes[kept], left_out=int((~kept).sum()))


@dataclass(frozen=True)
class _Records:
    """Estimates and originals, float64 (n, N), none of the originals black, and each record's sigma, (n,)."""

    estimates: Tensor
    originals: Tensor
    sigma: Tensor

    @property
    def mse(self) -> Tensor:
        return (self.estimates - self.originals).square().mean(dim=1)

    @property
    def mse_law(self) -> Tensor:
        return (self.sigma * self.norms).square()

    @property
    def norms(self) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self.originals, dim=1)
        return norms

    @property
    def contrasts(self) -> Tensor:
        """||x - mean(x)||, (n,): exactly 0 for an image of one brightness."""
        flat = self.originals.amin(dim=1) == self.originals.amax(dim=1)
        norms: Tensor = torch.linalg.vector_norm(_centred(self.originals), dim=1)
        return norms.masked_fill(flat, 0.0)

    def laws(self) -> list[LinearProbe]:
        """Each record's law; the zero-mean NCC's, too, where the image has any contrast."""
        return [
            LinearProbe(
                noise_multiplier=sigma,
                sample_rate=1.0,
                steps=1,
                pixels=self.originals.shape[1],
                norm=norm,
                centred_norm=min(contrast, norm) if contrast > 0 else None,
            )
            for sigma, norm, contrast in zip(
                self.sigma.tolist(), self.norms.tolist(), self.contrasts.tolist(), strict=True
            )
        ]

    def ncc(self) -> Tensor:
        """Pearson's correlation of estimates and originals, (n,); not a number where either is of one brightness."""
        return torch.cosine_similarity(_centred(self.estimates), _centred(self.originals), dim=1, eps=0.0)


def _figures(records: _Records, probes: Tensor, *, left_out: int) -> LawFigures:
    mse, mse_law, laws = records.mse, records.mse_law, records.laws()
    noisy = bool((records.sigma > 0).any())
    contrasted = records.contrasts > 0
    return LawFigures(
        records=len(mse),
        left_out=left_out,
        probes=len(probes.unique()),
        mse=float(mse.mean()) if len(mse) else None,
        mse_law=float(mse_law.mean()) if len(mse) else None,
        mse_ratio=float(mse.sum() / mse_law.sum()) if noisy else None,
        mse_ratio_ci95=_ratio_interval(mse, mse_law, probes) if noisy else None,
        psnr_median=_median((-10 * torch.log10(mse)).tolist()),
        psnr_median_law=_median([law.psnr_quantile(0.5) for law in laws]),
        ncc_median=_median(records.ncc()[contrasted].tolist()),
        ncc_median_law=_median([law.ncc_quantile(0.5) for law in laws if law.centred_norm is not None]),
        within_central_95=_share_within(mse, laws) if noisy else None,
    )


def _ratio_interval(measured: Tensor, expected: Tensor, probes: Tensor) -> tuple[float, float] | None:
    """A 95 % interval for sum(measured) / sum(expected) over clusters that are independent of each other."""
    _, cluster = probes.unique(return_inverse=True)
    count = int(cluster.max()) + 1
    if count < 2:
        return None
    ratio = float(measured.sum() / expected.sum())
    residuals = torch.zeros(count, dtype=torch.float64).index_add_(0, cluster, measured - ratio * expected)
    error = math.sqrt(count / (count - 1) * float(residuals.square().sum())) / float(expected.sum())
    reach = float(student.ppf(_CENTRAL[1], count - 1)) * error
    return ratio - reach, ratio + reach


def _share_within(mse: Tensor, laws: Sequence[LinearProbe]) -> float:
    low, high = (torch.tensor([law.mse_quantile(p) for law in laws], dtype=torch.float64) for p in _CENTRAL)
    return float(((mse >= low) & (mse <= high)).double().mean())


def _median(values: Sequence[float]) -> float | None:
    """The median, the mean of the middle two for an even number; infinities are values like others."""
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2


def _centred(images: Tensor) -> Tensor:
    return images - images.mean(dim=1, keepdim=True)


def _check(unprocessed: Tensor, originals: Tensor, clipped: Tensor, probes: Tensor) -> None:
    if unprocessed.shape != originals.shape:
        raise ValueError(f"estimates of {tuple(unprocessed.shape)} are not of originals of {tuple(originals.shape)}")
    for name, value in (("clipped", clipped), ("probes", probes)):
        if value.shape != originals.shape[:1]:
            raise ValueError(f"{name} must have an entry for each of {len(originals)} records, got {len(value)}")
