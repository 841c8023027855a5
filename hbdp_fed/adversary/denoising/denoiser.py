"""Training the denoiser and using it.

It learns what images look like from public ones, or from a phantom's, and takes off what does not belong to one. It
knows nothing of the attack, of budgets or of private records: whatever an attack gives back is put through it. A linear
filter for each strength of noise is a good answer already (:mod:`hbdp_fed.adversary.prior`); the net only has to choose
and to mend, so that a few hundred images and a minute on one core suffice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary.denoising.candidates import LEVELS, candidates
from hbdp_fed.adversary.denoising.damage import damaged
from hbdp_fed.adversary.denoising.net import ChoosingNet
from hbdp_fed.adversary.planted.code import coefficients_of
from hbdp_fed.adversary.prior import ImagePrior, fit_prior
from hbdp_fed.errors import SettingError
from hbdp_fed.models import initial_weights, load_weights, read_weights, save_weights
from hbdp_fed.types import Weights

logger = logging.getLogger(__name__)

MIN_IMAGES = 16
"""Fewer images than this teach a net nothing but themselves."""
_SMALLEST_SIDE = 11
"""The similarity's window."""

_RANK = 64
_CROP = 64
"""Larger images are learnt from in crops of this many pixels a side."""
_BATCH = 32
_LEARNING_RATE = 3e-3
_SIMILARITY = 0.5
"""What a unit of 1 - SSIM counts beside a unit of absolute error."""
_OWN = "net."


@dataclass(frozen=True)
class Denoiser:
    """A trained net, with the filters that it chooses from.

    Attributes:
        prior: On cosine coefficients of the images that it was trained on.
        shape: (C, *spatial) of the images.
        weights: Of the net.
    """

    prior: ImagePrior
    shape: tuple[int, ...]
    weights: Weights

    def __call__(self, images: Tensor) -> Tensor:
        """Cleaner images, float32 (M, C, *spatial) in [0, 1], of images of that shape; M may be 0.

        Raises:
            ValueError: if the images have another size than those it was trained on.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"the denoiser is for images {self.shape}, got {tuple(images.shape[1:])}")
        net = _net(self.shape)
        load_weights(net, self.weights)
        net.eval()
        with torch.no_grad():
            cleaned = [net(candidates(self.prior, part)).clamp(0.0, 1.0) for part in images.float().split(_BATCH)]
        return torch.cat(cleaned)

    def save(self, path: Path) -> None:
        """Write it as one safetensors file."""
        own = {_OWN + name: value for name, value in self.weights.items()}
        save_weights(path, {**own, **vars(self.prior), "shape": torch.tensor(self.shape)})

    @classmethod
    def load(cls, path: Path) -> Denoiser:
        """What :meth:`save` wrote, bit for bit."""
        kept = read_weights(path)
        return cls(
            prior=ImagePrior(mean=kept["mean"], factors=kept["factors"], residual=kept["residual"]),
            shape=tuple(kept["shape"].tolist()),
            weights={name.removeprefix(_OWN): value for name, value in kept.items() if name.startswith(_OWN)},
        )


def check_images(images: Tensor) -> None:
    """Whether a denoiser can be trained on these images (P, C, *spatial).

    Raises:
        SettingError: if there are too few, or they are too small.
    """
    if len(images) < MIN_IMAGES:
        raise SettingError("adversary.denoiser", f"needs at least {MIN_IMAGES} images to learn from, got {len(images)}")
    if min(images.shape[2:]) < _SMALLEST_SIDE:
        sides = "x".join(str(side) for side in images.shape[2:])
        raise SettingError(
            "adversary.denoiser",
            f"needs images of at least {_SMALLEST_SIDE} pixels a side, these have {sides}; set none",
        )


def train_denoiser(images: Tensor, *, steps: int, generator: torch.Generator, device: str = "cpu") -> Denoiser:
    """Train a net to restore images that were damaged at random.

    The prior is fitted to one half of the images and the net trained on the other: filters that had seen the very
    images would look better than they are.

    Args:
        images: float32 (P, C, *spatial) in [0, 1]: public ones, or a phantom's. Never a hospital's.
        steps: Of the optimiser, each on at most 32 images; at least 1.
        generator: A CPU generator, for the start, the draws and the damage.
        device: Where the net is trained.

    Raises:
        SettingError: as :func:`check_images`.
    """
    check_images(images)
    order = torch.randperm(len(images), generator=generator)
    known, lessons = images[order[::2]].float(), images[order[1::2]].float()
    prior, shape = _prior(known), tuple(images.shape[1:])
    mean, power = known.mean(dim=0), prior.variance.reshape(shape).float()
    net = _net(shape)
    load_weights(net, initial_weights(net, generator))
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(1, steps + 1):
        rows = torch.randint(len(lessons), (min(_BATCH, len(lessons)),), generator=generator)
        clean = lessons[rows]
        offered = candidates(prior, damaged(clean, mean=mean, power=power, generator=generator))
        loss = _loss(*_cropped(net, offered.to(device), clean.to(device), generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 5) == 0:
            logger.info("denoiser: step %d of %d, loss %.3f", step, steps, float(loss.detach()))
    weights = {name: value.detach().cpu().clone() for name, value in net.named_parameters()}
    # In use it knows all that there is.
    return Denoiser(prior=_prior(images.float()), shape=shape, weights=weights)


def _prior(images: Tensor) -> ImagePrior:
    return fit_prior(coefficients_of(images), rank=_RANK)


def _net(shape: tuple[int, ...]) -> ChoosingNet:
    return ChoosingNet(candidates=2 + len(LEVELS), channels=shape[0], spatial_dims=len(shape) - 1)


def _cropped(net: nn.Module, offered: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the net makes of a crop, and what it should have made of it."""
    for axis, side in enumerate(clean.shape[2:], start=2):
        if side > _CROP:
            start = int(torch.randint(side - _CROP + 1, (), generator=generator))
            offered, clean = offered.narrow(axis + 1, start, _CROP), clean.narrow(axis, start, _CROP)
    return net(offered), clean


def _loss(restored: Tensor, clean: Tensor) -> Tensor:
    similarity = structural_similarity_index_measure(restored, clean, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return (restored - clean).abs().mean() + _SIMILARITY * (1 - similarity)
