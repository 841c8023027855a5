from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scipy.stats import gamma, kstest
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary.linear_probe import LinearProbeAttack, clean_up
from hbdp_fed.adversary.prior import ImagePrior
from hbdp_fed.adversary.threat_models import REALISTIC, RELAXED
from hbdp_fed.audit.similarity import pairwise_ssim
from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, plain_summer, record_loss, seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.errors import SettingError
from hbdp_fed.models import initial_weights, load_weights
from hbdp_fed.models.linear_probe import LinearProbeModel
from hbdp_fed.privacy.image_error import LinearProbe
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    StepKnowledge,
    Weights,
)

SGD = OptimizerSettings("sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.01)
ADAMW = OptimizerSettings("adamw", learning_rate=1e-3, weight_decay=0.01)
NADAM = OptimizerSettings("nadam", learning_rate=1e-3)
EXPECTED_BATCH = 4.0

Crafted = tuple[ModelSpec, Weights]


def drawn(count: int, size: Sequence[int], *, channels: int = 1, seed: int = 0) -> Tensor:
    """float32 (count, channels, *size): a common shape, and each image's own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, *[3] * len(size), generator=generator)
    common = torch.randn(1, channels, *[3] * len(size), generator=torch.Generator().manual_seed(99))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    fine = 0.2 * torch.randn(count, channels, *size, generator=generator)
    return torch.sigmoid(functional.interpolate(1.5 * common + coarse, size=tuple(size), mode=mode) + fine)


def public_side(
    images: Tensor,
    *,
    sigma: float = 0.0,
    clip: float = 1.0,
    optimizer: OptimizerSettings = SGD,
    loss: str = "cross_entropy",
    class_weights: tuple[float, ...] | None = None,
) -> PublicSideInformation:
    return PublicSideInformation(
        images=images,
        mechanism=DpSgdParams(noise_multiplier=sigma, max_grad_norm=clip, sample_rate=0.1, steps=10),
        optimizer=optimizer,
        expected_batch=EXPECTED_BATCH,
        loss=loss,
        class_weights=class_weights,
    )


def craft(public: PublicSideInformation, *, classes: int = 2, base: str = "cnn", **args: int) -> Crafted:
    channels, spatial_dims = public.images.shape[1], public.images.dim() - 2
    expected = {"in_channels": channels, "num_classes": classes, "spatial_dims": spatial_dims, **args}
    return LinearProbeAttack().craft(ModelSpec(base, expected), {}, public, torch.Generator())


def built(crafted: Crafted) -> LinearProbeModel:
    model = LinearProbeModel(**crafted[0].args)
    load_weights(model, crafted[1])
    return model


def released(crafted: Crafted, public: PublicSideInformation, images: Tensor, labels: Tensor, seed: int) -> ModelUpdate:
    """What a hospital with this batch answers after one step."""
    loss = record_loss(public.loss, public.class_weights)
    step = dp_sgd_gradient(
        make_summer(built(crafted), public.mechanism, max_physical_batch=16, loss=loss),
        images,
        labels,
        mechanism=public.mechanism,
        expected_batch=public.expected_batch,
        noise=seeded_noise(torch.Generator().manual_seed(seed)),
    )
    before = crafted[1]["probe.weight"].double()
    after = before.clone()
    after.grad = step.gradient["probe.weight"]
    build_optimizer([after], public.optimizer).step()
    return ModelUpdate("hospital-0", round=3, delta={"probe.weight": after.detach() - before}, num_records=40)


def granted(
    crafted: Crafted, public: PublicSideInformation, images: Tensor, labels: Tensor, victim: int
) -> StepKnowledge:
    """What an auditor who holds the batch tells about its record ``victim``."""
    loss = record_loss(public.loss, public.class_weights)
    summer = make_summer(built(crafted), public.mechanism, max_physical_batch=16, loss=loss)
    rest = torch.arange(len(images)) != victim
    own = summer(images[~rest], labels[~rest]).total["probe.weight"].flatten()
    image = images[victim].double().flatten()
    return StepKnowledge(
        others=summer(images[rest], labels[rest]).total, factor=float(own @ image / image.square().sum())
    )


def observe(
    crafted: Crafted, public: PublicSideInformation, images: Tensor, labels: Tensor, *, victim: int = 0, seed: int = 1
) -> Observation:
    return Observation(
        threat_model=RELAXED,
        architecture=crafted[0],
        model_before=crafted[1],
        released=released(crafted, public, images, labels, seed),
        public=public,
        knowledge=granted(crafted, public, images, labels, victim),
    )


def labels_of(loss: str, classes: int, count: int) -> Tensor:
    if loss == "binary_cross_entropy":
        # The first patient has no finding at all.
        return (torch.arange(count)[:, None] >> torch.arange(classes)) & 1
    return torch.arange(count) % classes


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_the_error_of_the_unprocessed_estimate_follows_its_law(optimizer: OptimizerSettings) -> None:
    sigma, size, steps = 0.4, [9, 10], 300
    public = public_side(drawn(8, size, seed=1), sigma=sigma, clip=0.7, optimizer=optimizer)
    records, crafted, attack = drawn(30, size, seed=2), craft(public), LinearProbeAttack().prepared(public.images)
    generator = torch.Generator().manual_seed(7)
    errors = []
    for step in range(steps):
        batch = torch.randperm(len(records), generator=generator)[:4]
        images, labels = records[batch], torch.randint(2, (4,), generator=generator)
        seen = observe(crafted, public, images, labels, victim=step % 4, seed=step)
        estimate = attack.reconstruct(seen, generator).unprocessed
        assert estimate is not None
        image = images[step % 4].double()
        errors.append(float((estimate[0] - image).square().mean() / (sigma * image.norm()) ** 2))
    # Over its mean, the law is the same for every record.
    pixels = math.prod(size)
    law = gamma(pixels / 2, scale=2 / pixels)
    assert kstest(errors, law.cdf).pvalue > 0.01
    assert sum(errors) / steps == pytest.approx(1.0, abs=3 * law.std() / math.sqrt(steps))


def test_the_noise_it_states_is_the_laws() -> None:
    public = public_side(drawn(8, [12, 12], seed=1), sigma=0.2, clip=3.0)
    image = drawn(1, [12, 12], seed=2)
    result = LinearProbeAttack().reconstruct(
        observe(craft(public), public, image, torch.zeros(1, dtype=torch.int64)), torch.Generator()
    )
    norm = float(image.double().norm())
    law = LinearProbe(noise_multiplier=0.2, sample_rate=1, steps=1, pixels=144, norm=norm)
    assert result.details["noise_std"] == pytest.approx(0.2 * norm, rel=1e-6)
    # The median of this gamma variable is a hundredth below its mean.
    assert result.details["noise_std"] ** 2 == pytest.approx(law.mse_quantile(0.5), rel=0.02)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW, NADAM], ids=["sgd", "adamw", "nadam"])
@pytest.mark.parametrize("clip", [0.5, math.inf], ids=["clipped", "unclipped"])
def test_without_noise_the_image_comes_back(clip: float, optimizer: OptimizerSettings) -> None:
    public = public_side(drawn(8, [16, 16], seed=1), clip=clip, optimizer=optimizer)
    images, labels = drawn(6, [16, 16], seed=2), labels_of("cross_entropy", 2, 6)
    crafted = craft(public)
    for victim in range(len(images)):
        result = LinearProbeAttack().reconstruct(
            observe(crafted, public, images, labels, victim=victim), torch.Generator()
        )
        assert result.unprocessed is not None
        torch.testing.assert_close(result.unprocessed, images[[victim]], rtol=0, atol=2e-5)
        assert float(pairwise_ssim(result.images, images[[victim]])) > 0.9999


@pytest.mark.parametrize(
    ("channels", "size", "classes", "loss", "weights"),
    [
        (3, [12, 14], 7, "cross_entropy", (0.2, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0)),
        (1, [8, 9, 10], 2, "cross_entropy", None),
        (1, [12, 12], 6, "binary_cross_entropy", None),
        (1, [12, 12], 4, "binary_cross_entropy", (5.0, 2.0, 0.1, 1.0)),
    ],
    ids=["colour of seven classes", "volume", "findings", "weighted findings"],
)
def test_every_kind_of_record_is_clipped_and_comes_back(
    channels: int, size: list[int], classes: int, loss: str, weights: tuple[float, ...] | None
) -> None:
    public = public_side(drawn(6, size, channels=channels, seed=1), loss=loss, class_weights=weights)
    crafted = craft(public, classes=classes)
    images, labels = drawn(8, size, channels=channels, seed=2), labels_of(loss, classes, 8)
    for victim in range(len(images)):
        seen = observe(crafted, public, images, labels, victim=victim)
        assert seen.knowledge is not None
        assert abs(seen.knowledge.factor) * float(images[victim].norm()) == pytest.approx(1.0, rel=1e-5)
        result = LinearProbeAttack().reconstruct(seen, torch.Generator())
        torch.testing.assert_close(result.images, images[[victim]], rtol=0, atol=2e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice_cross_entropy"])
def test_a_segmentations_volume_comes_back(loss: str) -> None:
    size = [16, 16, 16]
    public = public_side(drawn(6, size, seed=1), loss=loss)
    crafted = craft(public, classes=3, base="unet", width=8)
    assert crafted[0].args["dense"] is True
    images = drawn(4, size, seed=2)
    labels = torch.randint(3, (4, *size), generator=torch.Generator().manual_seed(3))
    for victim in range(len(images)):
        seen = observe(crafted, public, images, labels, victim=victim)
        assert seen.knowledge is not None
        assert abs(seen.knowledge.factor) * float(images[victim].norm()) == pytest.approx(1.0, rel=1e-5)
        result = LinearProbeAttack().reconstruct(seen, torch.Generator())
        torch.testing.assert_close(result.images, images[[victim]], rtol=0, atol=2e-5)


def mean_errors(attack: LinearProbeAttack, public: PublicSideInformation, images: Tensor) -> tuple[float, float]:
    """Mean squared error of the cleaned-up and of the unprocessed estimates, each record alone in its batch."""
    crafted, label = craft(public), torch.zeros(1, dtype=torch.int64)
    pairs = []
    for row in range(len(images)):
        result = attack.reconstruct(observe(crafted, public, images[[row]], label, seed=row), torch.Generator())
        assert result.unprocessed is not None
        assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
        pairs.append([float((found - images[row]).square().mean()) for found in (result.images, result.unprocessed)])
    cleaned, unprocessed = torch.tensor(pairs).mean(dim=0).tolist()
    return cleaned, unprocessed


@pytest.mark.parametrize("size", [[14, 14], [8, 8, 8]], ids=["image", "volume"])
@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 0.1, 1.0])
def test_cleaning_up_helps_under_any_noise(sigma: float, size: list[int]) -> None:
    public = public_side(drawn(60, size, seed=1), sigma=sigma)
    cleaned, unprocessed = mean_errors(LinearProbeAttack().prepared(public.images), public, drawn(12, size, seed=2))
    assert cleaned < unprocessed
    if sigma >= 0.1:
        assert cleaned < unprocessed / 10


@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 0.1, 1.0])
def test_images_unlike_all_public_ones_are_not_cleaned_away(sigma: float) -> None:
    public = public_side(drawn(60, [14, 14], seed=1), sigma=sigma)
    other_scanner = 0.2 + 0.6 * drawn(12, [14, 14], seed=2).flip(dims=(2,)) ** 2
    attack = LinearProbeAttack().prepared(public.images)
    cleaned, unprocessed = mean_errors(attack, public, other_scanner)
    assert cleaned < unprocessed


def test_a_wrong_prior_is_trusted_as_far_as_the_estimate_supports_it() -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(1, 1, 12, 12, generator=generator, dtype=torch.float64)
    sure_and_wrong = ImagePrior(
        mean=torch.full((144,), -2.0, dtype=torch.float64),
        factors=torch.zeros(144, 0, dtype=torch.float64),
        residual=torch.full((144,), 1e-6, dtype=torch.float64),
    )
    estimate = image + 0.05 * torch.randn(image.shape, generator=generator, dtype=torch.float64)
    cleaned, trust = clean_up(sure_and_wrong, estimate, 0.05)
    assert trust < 0.01
    assert float((cleaned - image).square().sum()) <= float((estimate - image).square().sum()) * 1.01


def test_a_right_prior_is_trusted() -> None:
    public = public_side(drawn(200, [12, 12], seed=1), sigma=0.05)
    crafted, images = craft(public), drawn(10, [12, 12], seed=2)
    attack = LinearProbeAttack().prepared(public.images)
    label = torch.zeros(1, dtype=torch.int64)
    trusts = [
        attack.reconstruct(observe(crafted, public, image[None], label), torch.Generator()).details["trust"]
        for image in images
    ]
    assert sum(trusts) / len(trusts) > 0.85


def test_clipping_halves_the_error_of_black_and_white_images() -> None:
    generator = torch.Generator().manual_seed(5)
    public_images, images = torch.randint(2, (2, 40, 1, 16, 16), generator=generator).float()
    cleaned, unprocessed = mean_errors(LinearProbeAttack(), public_side(public_images, sigma=0.004), images)
    assert cleaned / unprocessed == pytest.approx(0.5, abs=0.03)


def test_preparing_changes_nothing_but_the_time_and_neither_does_reconstructing() -> None:
    public = public_side(drawn(20, [10, 10], seed=1), sigma=0.1)
    seen = observe(craft(public), public, drawn(3, [10, 10], seed=2), torch.tensor([0, 1, 1]))
    plain, generator = LinearProbeAttack(), torch.Generator().manual_seed(3)
    state = generator.get_state()
    first, second = plain.reconstruct(seen, generator), plain.prepared(public.images).reconstruct(seen, generator)
    assert torch.equal(first.images, second.images)
    assert first.details == second.details
    assert torch.equal(generator.get_state(), state)
    assert plain == LinearProbeAttack()
    assert plain.prior is None


def test_one_image_comes_back_with_its_figures() -> None:
    public = public_side(drawn(20, [10, 10], seed=1), sigma=0.1)
    crafted = craft(public)
    result = LinearProbeAttack().reconstruct(
        observe(crafted, public, drawn(3, [10, 10], seed=2), torch.tensor([0, 1, 1])), torch.Generator()
    )
    assert result.unprocessed is not None
    assert result.images.shape == result.unprocessed.shape == (1, 1, 10, 10)
    assert result.images.dtype == result.unprocessed.dtype == result.scores.dtype == torch.float32
    assert result.scores.tolist() == pytest.approx([-result.details["noise_std"]])
    assert result.details["gain"] == crafted[0].args["gain"]


def test_a_record_of_one_faint_pixel_is_clipped_and_a_much_darker_one_is_not() -> None:
    public = public_side(drawn(8, [10, 10], seed=1), sigma=0.5)
    crafted, label = craft(public), torch.zeros(1, dtype=torch.int64)
    for faint, reaches in ((1 / 255, True), (1e-6, False)):
        image = torch.zeros(1, 1, 10, 10)
        image[0, 0, 3, 4] = faint
        seen = observe(crafted, public, image, label)
        assert seen.knowledge is not None
        reached = abs(seen.knowledge.factor) * faint
        assert (reached == pytest.approx(1.0, rel=1e-5)) is reaches
        result = LinearProbeAttack().reconstruct(seen, torch.Generator())
        # What the law says is sigma * faint; a record that is not clipped has more noise than that.
        assert (result.details["noise_std"] == pytest.approx(0.5 * faint, rel=1e-5)) is reaches
        assert result.details["noise_std"] >= 0.5 * faint * (1 - 1e-5)


def test_darker_public_images_make_for_a_louder_model() -> None:
    images = drawn(8, [10, 10], seed=1)
    gains = [craft(public_side(images * scale))[0].args["gain"] for scale in (1.0, 1e-9)]
    assert gains[1] > 1e3 * gains[0]


def test_the_crafted_model_is_a_linear_probe_at_zero_and_plain_json() -> None:
    public = public_side(drawn(8, [10, 12], channels=3, seed=1))
    spec, weights = craft(public, classes=5)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.name == "linear_probe"
    assert spec.args.keys() == {"in_channels", "num_classes", "image_size", "gain", "dense"}
    assert weights["probe.weight"].shape == (1, 360)
    assert float(weights["probe.weight"].abs().max()) == 0
    # And its gradient is that of any linear probe's.
    total = plain_summer(built((spec, weights)), max_physical_batch=4)(
        drawn(1, [10, 12], channels=3), torch.tensor([4])
    )
    assert total.total["probe.weight"].shape == (1, 360)
    assert set(initial_weights(built((spec, weights)), torch.Generator())) == set(weights)


def test_what_cannot_be_used_is_refused() -> None:
    public = public_side(drawn(8, [10, 10], seed=1), sigma=0.1)
    seen = observe(craft(public), public, drawn(2, [10, 10], seed=2), torch.tensor([0, 1]))
    attack, generator = LinearProbeAttack(), torch.Generator()
    knowledge = seen.knowledge
    assert knowledge is not None
    with pytest.raises(ValueError, match="handed a 'cnn', not a linear probe"):
        attack.reconstruct(replace(seen, architecture=ModelSpec("cnn")), generator)
    with pytest.raises(ValueError, match="needs to be granted"):
        attack.reconstruct(replace(seen, knowledge=None, threat_model=REALISTIC), generator)
    for factor in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="factor must be finite and not 0"):
            attack.reconstruct(replace(seen, knowledge=replace(knowledge, factor=factor)), generator)
    with pytest.raises(ValueError, match="the prior is of 144 pixels, the record has 100"):
        attack.prepared(drawn(8, [12, 12])).reconstruct(seen, generator)


def test_settings_and_public_images_that_do_not_do_are_refused() -> None:
    with pytest.raises(SettingError, match=r"adversary\.rank"):
        LinearProbeAttack(rank=-1)
    with pytest.raises(SettingError, match=r"at least 4 public .* there are 3"):
        LinearProbeAttack().check_public(drawn(3, [10, 10]))
    with pytest.raises(SettingError, match="two or three dimensions"):
        LinearProbeAttack().check_public(torch.zeros(8, 1, 10))
    with pytest.raises(SettingError, match="does not know the loss 'hinge'"):
        craft(public_side(drawn(8, [10, 10]), loss="hinge"))
    with pytest.raises(SettingError, match="needs two classes"):
        craft(public_side(drawn(8, [10, 10])), classes=1)
