"""The optimal linear probe: what an adversary makes of one step when only the noise is in its way.

The attack of the relaxed threat model (Ziller et al. 2024, Nat. Mach. Intell. 6, 764-774, and arXiv 2402.12861). The
hospitals are handed a model whose gradient for one record is the record's image x times a factor
(:mod:`hbdp_fed.models.linear_probe`). The adversary does not hold the record, but its algorithm is perfect: it is
granted the other records' clipped gradients and the factor (:class:`hbdp_fed.types.StepKnowledge`). What is left of the
step's noisy sum is

    factor * x + N(0, (sigma C)^2) in every pixel,    so    xhat = left / factor = x + N(0, (sigma C / |factor|)^2).

The record's gradient reaches the clipping norm C, so that |factor| = C / ||x|| and the noise has the standard deviation
sigma ||x||: the law of :class:`hbdp_fed.privacy.image_error.LinearProbe`, given that the step drew the record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import coefficients_of
from hbdp_fed.adversary.prior import MIN_IMAGES, ImagePrior, fit_prior, posterior_mean
from hbdp_fed.adversary.public_images import check_public_images
from hbdp_fed.dpsgd.optimizers import first_gradient
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model
from hbdp_fed.models.planted import dct, inverse_dct
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    Observation,
    PublicSideInformation,
    Reconstruction,
    StepKnowledge,
    Weights,
)

MODEL = "linear_probe"
"""The name of the model in the registry."""

_WEIGHT = "probe.weight"

_FAINTEST = 1 / 255
"""The norm of the darkest image of 8 bits that is not black: one pixel, one grey level."""

_MARGIN = 10.0
"""How many times the clipping norm the gradient of the faintest image is."""


@dataclass(frozen=True)
class LinearProbeAttack:
    """The linear probe with a perfect algorithm, for one DP-SGD step by whichever optimiser the hospitals announced.

    Attributes:
        rank: Principal components in the prior on images.
        prior: What public images say, where :meth:`prepared` has worked it out beforehand; None works it out anew in
            every reconstruction.
        name: What reports call the attack.
    """

    rank: int = 64
    prior: ImagePrior | None = field(default=None, repr=False, compare=False)
    name: str = "linear_probe"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise SettingError("adversary.rank", f"must not be negative, got {self.rank}")

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial), which is known before any training.

        Raises:
            SettingError: if there are too few, or they are neither images nor volumes.
        """
        check_public_images(images, attack=self.name, least=MIN_IMAGES)

    def prepared(self, images: Tensor) -> LinearProbeAttack:
        """This attack with the prior of these public images (P, C, *spatial) worked out once and for all.

        For whoever reconstructs many records with the same public images: it makes no other difference.

        Raises:
            SettingError: if the public images do not suffice (see :meth:`check_public`).
        """
        return replace(self, prior=self._fit(images))

    def craft(
        self, base: ModelSpec, weights: Weights, public: PublicSideInformation, generator: torch.Generator
    ) -> tuple[ModelSpec, Weights]:
        """The malicious model to hand out: the linear probe at weight 0, with the base's kind of outputs.

        Its gain lets every record's gradient reach the clipping norm ten times over, down to the darkest image of 8
        bits that is not black, or the darkest public image if that is darker still. A record more than ten times darker
        than that is not clipped: its factor is smaller than C / ||x||, and its image comes back in more noise than the
        law says. Of a black record there is nothing to see. Where nothing is clipped there is no noise, and any gain
        would do.

        Args:
            base: The model that the hospitals expect, with ``in_channels`` and ``num_classes`` among its arguments.
            weights: Its current weights, which play no part.
            public: What the server knows, with the announced mechanism of the hospital it aims at.
            generator: Not drawn from: there is nothing to search for.

        Returns:
            A specification of the registry's ``linear_probe`` model, and its weights (float32).

        Raises:
            SettingError: if the public images do not suffice (see :meth:`check_public`), or the loss is one that no
                linear probe has been worked out for.
        """
        self.check_public(public.images)
        image_size = list(public.images.shape[2:])
        channels = int(base.args["in_channels"])
        outputs = _output_shape(base, public.images)
        args = {
            "in_channels": channels,
            "num_classes": int(base.args["num_classes"]),
            "image_size": image_size,
            "gain": _sufficient_gain(public, outputs),
            "dense": len(outputs) > 1,
        }
        return ModelSpec(MODEL, args), {_WEIGHT: torch.zeros(1, channels * math.prod(image_size))}

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild the one record that ``observation`` grants the knowledge of.

        Args:
            observation: With a model made by :meth:`craft`, an update of one step, and knowledge.
            generator: Not drawn from.

        Returns:
            One image. Unprocessed it is xhat. Under noise the other is what :func:`clean_up` makes of that; without
            noise it is clipped to [0, 1] alone. Its details give the standard deviation of the noise in a pixel of
            xhat, the model's gain, and how far the public images were trusted, from 0 to 1. Its score is the noise's
            standard deviation, negative.

        Raises:
            ValueError: if the hospital was not handed a linear probe, nothing but the release was granted, the factor
                is 0 or not finite, or the attack was prepared with images of another size.
        """
        knowledge = _granted(observation)
        args, mechanism = observation.architecture.args, observation.public.mechanism
        shape = (1, int(args["in_channels"]), *args["image_size"])
        estimate = (_left_over(observation, knowledge) / knowledge.factor).reshape(shape)
        noise_std = _noise_std(mechanism) / abs(knowledge.factor)
        cleaned, trust = estimate.clamp(0.0, 1.0), 0.0
        if noise_std > 0:
            prior = self._fit(observation.public.images) if self.prior is None else self.prior
            cleaned, trust = clean_up(prior, estimate, noise_std)
        return Reconstruction(
            images=cleaned.float(),
            scores=torch.tensor([-noise_std]),
            details={"noise_std": noise_std, "gain": float(args["gain"]), "trust": trust},
            unprocessed=estimate.float(),
        )

    def _fit(self, images: Tensor) -> ImagePrior:
        self.check_public(images)
        return fit_prior(coefficients_of(images), rank=self.rank)


def clean_up(prior: ImagePrior, estimate: Tensor, noise_std: float) -> tuple[Tensor, float]:
    """An estimate made better by what public images and the range of pixels say, as far as it supports them itself.

    For y = x + N(0, s^2 I) and the Wiener filter's A y + b, the posterior mean under the prior, it is moved the part t
    of the way from y to A y + b. A private image may be unlike all public ones (another scanner took it), and then the
    whole way would do harm. Stein's unbiased risk estimate (Stein 1981, Ann. Statist. 9, 1135-1151) tells from y alone:

        risk(t) = D s^2 + t^2 |A y + b - y|^2 - 2 t s^2 tr(I - A),    least at    t = s^2 tr(I - A) / |A y + b - y|^2.

    If the prior is right, t is 1 in expectation. It is not let above that. The result is clipped to [0, 1]. But an
    image of black and white is best clipped alone, and if the same estimate says so, that is what is done.

    Args:
        prior: Of the D cosine coefficients.
        estimate: y, float64 (1, C, *spatial).
        noise_std: s, positive.

    Returns:
        The better estimate, float64 (1, C, *spatial) in [0, 1], and t; 0 where it is clipped alone.

    Raises:
        ValueError: if the prior is of images of another size.
    """
    if estimate.numel() != len(prior.mean):
        raise ValueError(f"the prior is of {len(prior.mean)} pixels, the record has {estimate.numel()}")
    variance = noise_std**2
    measured = dct(estimate).flatten(start_dim=1)
    pull = posterior_mean(prior, measured, torch.full_like(measured, variance)) - measured
    force, shrinkage = float(pull.square().sum()), variance * _shrinkage(prior, variance)
    trust = min(1.0, shrinkage / force) if force > 0 else 1.0
    filtered_risk = estimate.numel() * variance + trust**2 * force - 2 * trust * shrinkage
    clipped = estimate.clamp(0.0, 1.0)
    if _risk_of_clipping(estimate, clipped, variance) < filtered_risk:
        return clipped, 0.0
    filtered = inverse_dct((measured + trust * pull).reshape(estimate.shape))
    return filtered.clamp(0.0, 1.0), trust


def _risk_of_clipping(estimate: Tensor, clipped: Tensor, variance: float) -> float:
    """Stein's estimate for clipping, whose divergence counts the pixels within the range."""
    inside = int((estimate == clipped).sum())
    return (2 * inside - estimate.numel()) * variance + float((clipped - estimate).square().sum())


def _shrinkage(prior: ImagePrior, noise_variance: float) -> float:
    """tr(I - A) of the Wiener filter A: s^2 times the trace of (F F^T + diag(R) + s^2 I)^-1, by Woodbury's identity."""
    total = prior.residual + noise_variance
    weighted = prior.factors / total[:, None]
    inner = torch.eye(prior.factors.shape[1], dtype=torch.float64) + weighted.T @ prior.factors
    explained = torch.linalg.solve(inner, weighted.T @ weighted).trace()
    return noise_variance * float((1 / total).sum() - explained)


def _granted(observation: Observation) -> StepKnowledge:
    """The knowledge, of an observation that this attack can use."""
    if observation.architecture.name != MODEL:
        raise ValueError(f"the hospital was handed a '{observation.architecture.name}', not a linear probe")
    if observation.knowledge is None:
        raise ValueError("the linear probe needs to be granted the other records' gradients and the record's factor")
    factor = observation.knowledge.factor
    if factor == 0 or not math.isfinite(factor):
        raise ValueError(f"the record's factor must be finite and not 0, got {factor}")
    return observation.knowledge


def _left_over(observation: Observation, knowledge: StepKnowledge) -> Tensor:
    """The step's noisy sum without the other records, float64 (1, D).

    Whatever the hospital's optimiser made of it: its first step can be undone.
    """
    public, delta = observation.public, observation.released.delta[_WEIGHT]
    gradient = first_gradient({_WEIGHT: delta}, observation.model_before, public.optimizer)[_WEIGHT]
    return gradient.cpu() * public.expected_batch - knowledge.others[_WEIGHT].double().cpu()


def _noise_std(mechanism: DpSgdParams) -> float:
    # 0 times inf, the control's clipping norm, would be no number.
    return mechanism.noise_multiplier * mechanism.max_grad_norm if mechanism.noise_multiplier > 0 else 0.0


def _output_shape(base: ModelSpec, images: Tensor) -> Sequence[int]:
    """What the base makes of one image: (K,), or (K, *spatial) of a segmentation."""
    model = build_model(base).eval()
    with torch.no_grad():
        return tuple(model(images[:1].float()).shape[1:])


def _sufficient_gain(public: PublicSideInformation, outputs: Sequence[int]) -> float:
    """The gain at which the gradient of the faintest image is ``_MARGIN`` times the clipping norm, for any label."""
    weakest = _weakest_factor(public.loss, public.class_weights, outputs)
    if not math.isfinite(public.mechanism.max_grad_norm):
        return 1 / weakest
    norms = public.images.double().flatten(start_dim=1).norm(dim=1)
    faintest: float = min([_FAINTEST, *norms[norms > 0].tolist()])
    return _MARGIN * public.mechanism.max_grad_norm / (weakest * faintest)


def _weakest_factor(loss: str, class_weights: Sequence[float] | None, outputs: Sequence[int]) -> float:
    """The smallest |r| that any label gives at gain 1 (see :mod:`hbdp_fed.models.linear_probe`).

    A cross-entropy that is a mean over V pixels or voxels leaves one V-th of it to the first one. With two classes the
    Dice loss only adds to that. With more it may pull the other way for odd labels: of ten thousand random ones of 15
    classes none lost more than three quarters, which is far within ``_MARGIN``.
    """
    classes, *spatial = outputs
    weights = (1.0,) * classes if class_weights is None else tuple(class_weights)
    if loss == "binary_cross_entropy":
        return min(1.0, weights[0]) / (2 * classes)
    if loss not in ("cross_entropy", "dice_cross_entropy"):
        raise SettingError("adversary.attack", f"linear_probe does not know the loss '{loss}'")
    if classes < 2:
        raise SettingError("adversary.attack", f"linear_probe needs two classes, the model has {classes}")
    return min(weights) / (classes * math.prod(spatial))
