"""One attack on one hospital's batch, held against the truth record by record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hbdp_fed.audit.baselines import Baselines, guess
from hbdp_fed.audit.criterion import DEFAULT_CRITERION, Criterion
from hbdp_fed.audit.matching import match
from hbdp_fed.audit.similarity import mse, ncc, pairwise_ssim, psnr
from hbdp_fed.types import Reconstruction

_ROUNDING = 1e-5
"""By how much an SSIM has to exceed a baseline's: the baseline's own image, among others, scores it to about 1e-6."""


@dataclass(frozen=True)
class ProbeOutcome:
    """What one attack on one hospital's batch came to, record by record.

    Attributes:
        hospital: Whose batch.
        round: Of the observation.
        reconstruction: int64 (N,), which reconstruction was matched with each record; -1 for none.
        ssim: float32 (N,), with that reconstruction; NaN for none.
        psnr: float64 (N,), in dB; NaN for none.
        mse: float64 (N,); NaN for none.
        ncc: float64 (N,), the correlation of the two images' pixels, each image's mean taken off; NaN for none, and
            where an image is constant.
        baselines: What scores without showing the record. ``nearest_index`` counts public images; ``other_index``
            counts the originals and then the controls that the audit was given, image by image.
        above_baselines: float32 (N,), the highest SSIM of any view that exceeds what that view's baselines score; NaN
            where none does. Whatever the threshold, a record counts as rebuilt where this exceeds it.
        success: bool (N,), whether it exceeds the criterion's.
        view: int64 (N,), which of the record's views the other fields are about: the one that was rebuilt best.
        control_above_baselines: float32 (Nc,), the same for the control records, which were not in the batch; may be
            empty.
        control_success: bool (Nc,), the same for these.
        details: The attack's own figures.
    """

    hospital: str
    round: int
    reconstruction: Tensor
    ssim: Tensor
    psnr: Tensor
    mse: Tensor
    ncc: Tensor
    baselines: Baselines
    above_baselines: Tensor
    success: Tensor
    view: Tensor
    control_above_baselines: Tensor
    control_success: Tensor
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def baseline(self) -> Tensor:
        """float32 (N,), the best baseline's SSIM."""
        return self.baselines.best

    @property
    def nearest_public(self) -> Tensor:
        """int64 (N,), the public image with the highest SSIM."""
        return self.baselines.nearest_index


@dataclass(frozen=True)
class Originals:
    """What reconstructions are held against, with what scores without showing any of it. Made by :func:`originals_of`.

    Attributes:
        images: float (N * K, C, *spatial), the records that were there, K views of each.
        controls: float (Nc * K, C, *spatial), private records that were not.
        views: K.
        baselines: Of the images and then the controls.
    """

    images: Tensor
    controls: Tensor
    views: int
    baselines: Baselines

    def audit(
        self,
        reconstruction: Reconstruction,
        *,
        hospital: str,
        round: int,
        criterion: Criterion = DEFAULT_CRITERION,
    ) -> ProbeOutcome:
        """Hold a reconstruction against them.

        Args:
            reconstruction: What the attack claims.
            hospital: Whose batch.
            round: Of the observation.
            criterion: What counts as a success.
        """
        own, control = slice(0, len(self.images)), slice(len(self.images), None)
        similarity = pairwise_ssim(reconstruction.images, torch.cat([self.images, self.controls]))
        chosen, ssim = _matched(similarity[:, own])
        _, control_ssim = _matched(similarity[:, control])
        above = _above(ssim, self.baselines.at(own))
        view = _best_view(ssim, above > criterion.ssim, self.views)
        rows = torch.arange(len(view)) * self.views + view
        by_record = _best_of_views(above, self.views)
        control_by_record = _best_of_views(_above(control_ssim, self.baselines.at(control)), self.views)
        return ProbeOutcome(
            hospital=hospital,
            round=round,
            reconstruction=chosen[rows],
            ssim=ssim[rows],
            psnr=_of_pairs(psnr, reconstruction.images, self.images[rows], chosen[rows]),
            mse=_of_pairs(mse, reconstruction.images, self.images[rows], chosen[rows]),
            ncc=_of_pairs(ncc, reconstruction.images, self.images[rows], chosen[rows]),
            baselines=self.baselines.at(rows),
            above_baselines=by_record,
            # A comparison with NaN is false: a record without a reconstruction is no success.
            success=by_record > criterion.ssim,
            view=view,
            control_above_baselines=control_by_record,
            control_success=control_by_record > criterion.ssim,
            details=dict(reconstruction.details),
        )


def originals_of(
    images: Tensor,
    public: Tensor,
    *,
    controls: Tensor | None = None,
    views: int = 1,
    groups: Tensor | None = None,
    control_groups: Tensor | None = None,
) -> Originals:
    """Work out what reconstructions of these records will be held against, once for any number of reconstructions.

    Args:
        images: float (N * K, C, *spatial) in [0, 1], the records that were in the batch, as the model saw them: rows
            r * K to r * K + K - 1 hold record r's K views. N may be 0.
        public: float (P, C, *spatial) in [0, 1], the images that the adversary had anyway.
        hospital: Whose batch.
        round: Of the observation.
        controls: float (Nc * K, C, *spatial) in [0, 1], private records that were not in the batch, best about as many
            and in as many views: what they score is what chance and a smooth guess score.
        views: K, at least 1. A patient is recognised in any view: a record counts by the one that was rebuilt best.
        groups: int64 (N,), each record's patient; None where every record has its own.
        control_groups: int64 (Nc,), each control's, numbered as in ``groups``; None where every control has its own.

    Raises:
        ValueError: if images are no whole number of records, or records and groups are not as many.
    """
    controls = images[:0] if controls is None else controls
    patients = torch.cat(_patients(_records(images, views), groups, _records(controls, views), control_groups))
    baselines = guess(torch.cat([images, controls]), public, patients=patients.repeat_interleave(views))
    return Originals(images=images, controls=controls, views=views, baselines=baselines)


def audit_probe(
    reconstruction: Reconstruction,
    originals: Tensor,
    public: Tensor,
    *,
    hospital: str,
    round: int,
    controls: Tensor | None = None,
    views: int = 1,
    groups: Tensor | None = None,
    control_groups: Tensor | None = None,
    criterion: Criterion = DEFAULT_CRITERION,
) -> ProbeOutcome:
    """Hold one reconstruction against the truth: :func:`originals_of` and :meth:`Originals.audit` in one."""
    truth = originals_of(
        originals, public, controls=controls, views=views, groups=groups, control_groups=control_groups
    )
    return truth.audit(reconstruction, hospital=hospital, round=round, criterion=criterion)


def _records(images: Tensor, views: int) -> int:
    if len(images) % views:
        raise ValueError(f"{len(images)} images are no whole number of records in {views} views")
    return len(images) // views


def _patients(records: int, groups: Tensor | None, controls: int, control_groups: Tensor | None) -> list[Tensor]:
    """A number for each record's and each control's patient; who was given no group has a number of his own."""
    given = [group for group in (groups, control_groups) if group is not None and len(group)]
    free = 1 + max((int(group.max()) for group in given), default=-1)
    numbers = [
        torch.arange(free, free + records) if groups is None else groups,
        torch.arange(free + records, free + records + controls) if control_groups is None else control_groups,
    ]
    if [len(part) for part in numbers] != [records, controls]:
        raise ValueError(
            f"{records} records and {controls} controls have {len(numbers[0])} and {len(numbers[1])} groups"
        )
    return numbers


def _matched(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the reconstruction that it was matched with, -1 for none, and their SSIM, NaN for none."""
    matching = match(similarity)
    chosen = torch.full((similarity.shape[1],), -1, dtype=torch.int64)
    chosen[matching.records] = matching.reconstructions
    ssim = torch.full((similarity.shape[1],), math.nan)
    ssim[matching.records] = similarity[matching.reconstructions, matching.records]
    return chosen, ssim


def _above(ssim: Tensor, baselines: Baselines) -> Tensor:
    """The SSIMs that exceed what the baselines score; NaN elsewhere."""
    return torch.where(ssim > baselines.best + _ROUNDING, ssim, math.nan)


def _best_of_views(values: Tensor, views: int) -> Tensor:
    """Each record's largest value; NaN where no view has one."""
    best = values.nan_to_num(nan=-math.inf).view(-1, views).amax(dim=1)
    return best.masked_fill(best.isinf(), math.nan)


def _best_view(ssim: Tensor, success: Tensor, views: int) -> Tensor:
    """Which view of each record was rebuilt best: successes first, then by SSIM."""
    rank = success.float() * 10 + ssim.nan_to_num(nan=-2.0)
    return rank.view(-1, views).argmax(dim=1)


def _of_pairs(measure: Callable[[Tensor, Tensor], Tensor], images: Tensor, originals: Tensor, chosen: Tensor) -> Tensor:
    """``measure`` of each original with its reconstruction; NaN for none."""
    result = torch.full((len(originals),), math.nan, dtype=torch.float64)
    rebuilt = chosen >= 0
    result[rebuilt] = measure(images[chosen[rebuilt]], originals[rebuilt]).double()
    return result
