"""What each surface shows of a round's answers, against sums and noise written out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary import REALISTIC, RELAXED, SURFACES, public_of_mean, record_scales, seen_on
from hbdp_fed.dpsgd.optimizers import build_optimizer, first_gradient
from hbdp_fed.types import (
    ALL_HOSPITALS,
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Surface,
    ThreatModel,
    Weights,
)
from tests.adversary.reachable import reachable, tensors

CLIP = 0.7
SGD = OptimizerSettings("sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.02)
SHAPES = {"body.weight": (160, 120), "head.bias": (40,)}


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, *, scale: float = 1.0) -> Weights:
    generator = stream(seed)
    return {
        name: scale * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()
    }


def flat(weights: Weights) -> Tensor:
    return torch.cat([value.double().flatten() for value in weights.values()])


@dataclass(frozen=True)
class Hospital:
    """A hospital that has summed its clipped gradients, and what its step is made of besides."""

    name: str
    sigma: float
    share: float
    batch: float
    records: int
    seed: int
    clip: float = CLIP
    total: Weights = field(init=False)
    noise: Weights = field(init=False)

    def __post_init__(self) -> None:
        std = self.sigma * self.clip if self.sigma else 0.0
        object.__setattr__(self, "total", drawn(self.seed))
        object.__setattr__(self, "noise", drawn(self.seed + 100, scale=std))

    def answer(self, optimizer: OptimizerSettings = SGD) -> Observation:
        """One step on the noisy mean gradient, taken by the optimiser itself."""
        before = {name: value.float() for name, value in drawn(1).items()}
        after = {name: value.double() for name, value in before.items()}
        for name, value in after.items():
            value.grad = (self.total[name] + self.noise[name]) / self.batch
        build_optimizer(list(after.values()), optimizer).step()
        return Observation(
            threat_model=REALISTIC,
            architecture=ModelSpec("cnn", {"width": 4}),
            model_before=before,
            released=ModelUpdate(
                self.name,
                7,
                {name: value.detach() - before[name].double() for name, value in after.items()},
                self.records,
            ),
            public=PublicSideInformation(
                images=torch.rand(5, 1, 8, 8, generator=stream(9)),
                mechanism=DpSgdParams(self.sigma, self.clip, self.batch / self.records, steps=3),
                optimizer=optimizer,
                expected_batch=self.batch,
            ),
        )


HOSPITALS = (
    Hospital("hospital-01", sigma=0.3, share=0.5, batch=20.0, records=200, seed=11),
    Hospital("hospital-02", sigma=1.1, share=0.2, batch=5.0, records=80, seed=12),
    Hospital("hospital-03", sigma=0.6, share=0.3, batch=30.0, records=120, seed=13),
)
"""Their records count 0.025, 0.04 and 0.01 in the mean: the second, neither first nor largest, is the loudest."""

SCALES = {"hospital-01": 0.625, "hospital-02": 1.0, "hospital-03": 0.25}


def shares(hospitals: Sequence[Hospital] = HOSPITALS) -> dict[str, float]:
    return {hospital.name: hospital.share for hospital in hospitals}


def answers(hospitals: Sequence[Hospital] = HOSPITALS) -> list[Observation]:
    return [hospital.answer() for hospital in hospitals]


def equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_loudest_hospitals_records_count_one_and_the_others_less() -> None:
    assert record_scales({one.name: one.batch for one in HOSPITALS}, shares()) == pytest.approx(SCALES)


@pytest.mark.parametrize("surface", ["gradient", "update"])
def test_where_hospitals_are_seen_one_by_one_each_answer_is_seen_as_it_was_sent(surface: Surface) -> None:
    sent = answers()
    seen = seen_on(surface, sent, shares())
    assert [one.released.hospital for one in seen] == list(shares())
    for one, answer in zip(seen, sent, strict=True):
        assert one.threat_model == replace(REALISTIC, surface=surface)
        assert equal(one.released.delta, answer.released.delta)
        assert replace(one, threat_model=answer.threat_model) == answer


def test_one_hospital_alone_can_be_seen_without_the_others() -> None:
    [first, *_] = answers()
    assert seen_on("update", [first], {"hospital-01": 0.5})[0].released is first.released


@pytest.mark.parametrize("threat_model", [REALISTIC, RELAXED], ids=lambda model: model.name)
@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_changes_what_is_seen_and_no_other_capability(surface: Surface, threat_model: ThreatModel) -> None:
    sent = [replace(answer, threat_model=threat_model) for answer in answers()]
    for one in seen_on(surface, sent, shares()):
        assert one.threat_model == replace(threat_model, surface=surface)
        assert one.knowledge is None


@pytest.mark.parametrize("surface", ["aggregate", "global_model"])
def test_the_mean_is_one_observation_of_all_hospitals(surface: Surface) -> None:
    [seen] = seen_on(surface, answers(), shares())
    assert seen.released.hospital == ALL_HOSPITALS
    assert seen.released.round == 7
    assert seen.released.num_records == 200 + 80 + 120
    assert seen.architecture == answers()[0].architecture
    assert equal(seen.model_before, answers()[0].model_before)
    assert torch.equal(seen.public.images, answers()[0].public.images)
    assert (seen.public.optimizer, seen.public.loss) == (SGD, "cross_entropy")


def test_the_aggregate_is_the_weighted_mean_of_what_was_sent() -> None:
    sent = answers()
    [seen] = seen_on("aggregate", sent, shares())
    for name, value in seen.released.delta.items():
        by_hand = 0.5 * sent[0].released.delta[name] + 0.2 * sent[1].released.delta[name]
        by_hand = by_hand + 0.3 * sent[2].released.delta[name]
        torch.testing.assert_close(value, by_hand, rtol=1e-13, atol=0)
        assert value.dtype == torch.float64


def test_the_global_model_shows_the_aggregate_up_to_the_rounding_of_the_weights() -> None:
    [mean], [change] = (seen_on(surface, answers(), shares()) for surface in ("aggregate", "global_model"))
    largest = max(float(value.abs().max()) for value in mean.model_before.values()) + 1
    differences = []
    for name, value in change.released.delta.items():
        differences.append((value - mean.released.delta[name]).abs().max())
        # What the two models differ by, and no finer.
        start = mean.model_before[name].double()
        assert torch.equal(value, (start + mean.released.delta[name]) - start)
    assert 0 < float(max(differences)) <= largest * torch.finfo(torch.float64).eps
    assert change.public.mechanism == mean.public.mechanism
    assert change.public.expected_batch == mean.public.expected_batch


def undone(seen: Observation) -> Tensor:
    """What the adversary makes of an answer: the noisy sum, by the announced optimiser and batch."""
    gradient = first_gradient(seen.released.delta, seen.model_before, seen.public.optimizer)
    return flat(gradient) * seen.public.expected_batch


def test_undoing_the_optimiser_gives_the_scaled_clipped_sums_and_nothing_but_noise() -> None:
    """Without noise exactly; with it, noise of the variance that the announced mechanism says."""
    silent = [replace(hospital, sigma=0.0) for hospital in HOSPITALS]
    total = sum((SCALES[one.name] * flat(one.total) for one in silent), torch.zeros(()))
    [seen] = seen_on("aggregate", answers(silent), shares())
    torch.testing.assert_close(undone(seen), total, rtol=1e-9, atol=1e-9)
    assert seen.public.mechanism.noise_multiplier == 0

    [noisy] = seen_on("aggregate", answers(), shares())
    left = undone(noisy) - total
    noise = sum((SCALES[one.name] * flat(one.noise) for one in HOSPITALS), torch.zeros(()))
    torch.testing.assert_close(left, noise, rtol=1e-7, atol=1e-9)
    public = noisy.public.mechanism
    # 19,240 coordinates: a standard deviation of the estimate of 0.5%.
    assert float(left.std()) == pytest.approx(public.noise_multiplier * public.max_grad_norm, rel=0.02)
    assert public.noise_multiplier == pytest.approx(math.hypot(0.3 * 0.625, 1.1, 0.6 * 0.25))


def test_a_mean_that_was_all_that_travelled_is_seen_as_one_that_was_worked_out() -> None:
    """Under secure aggregation the mean arrives by itself, with what was announced of the hospitals in it."""
    publics = {answer.released.hospital: answer.public for answer in answers()}
    [worked_out] = seen_on("aggregate", answers(), shares())
    assert public_of_mean(publics, shares()) == replace(worked_out.public, images=publics["hospital-01"].images)
    arrived = replace(answers()[0], threat_model=worked_out.threat_model, released=worked_out.released)
    arrived = replace(arrived, public=public_of_mean(publics, shares()))
    for surface in ("aggregate", "global_model"):
        [seen], [expected] = seen_on(surface, [arrived], {}), seen_on(surface, answers(), shares())
        assert equal(seen.released.delta, expected.released.delta)
        assert seen.threat_model == expected.threat_model
        assert seen.public.expected_batch == expected.public.expected_batch
    for surface in ("gradient", "update"):
        with pytest.raises(ValueError, match="does not show all hospitals"):
            seen_on(surface, [arrived], {})


@pytest.mark.parametrize("surface", ["aggregate", "global_model"])
def test_a_mean_of_hospitals_that_clip_to_different_norms_is_refused(surface: Surface) -> None:
    apart = [replace(HOSPITALS[0], clip=0.4), *HOSPITALS[1:]]
    with pytest.raises(ValueError, match="one clipping norm, got"):
        seen_on(surface, answers(apart), shares())
    assert len(seen_on("update", answers(apart), shares())) == 3


def test_equal_hospitals_share_their_noise() -> None:
    """Of H alike hospitals, the sum has sqrt(H) times the noise of one, and H times its batch."""
    alike = [Hospital(f"h{place}", 0.8, 0.25, 16.0, 100, seed=place) for place in range(4)]
    [seen] = seen_on("aggregate", answers(alike), shares(alike))
    assert seen.public.mechanism.noise_multiplier == pytest.approx(2 * 0.8)
    assert seen.public.expected_batch == pytest.approx(4 * 16.0)
    assert set(record_scales({one.name: one.batch for one in alike}, shares(alike)).values()) == {1.0}


def test_one_hospital_is_its_own_aggregate() -> None:
    [sent] = answers(HOSPITALS[1:2])
    [seen] = seen_on("aggregate", [sent], {"hospital-02": 1.0})
    assert equal(seen.released.delta, sent.released.delta)
    assert seen.public.mechanism.noise_multiplier == pytest.approx(1.1)
    assert seen.public.expected_batch == 5.0


def test_an_unclipped_control_has_no_noise_in_the_sum_either() -> None:
    control = [replace(one, sigma=0.0, clip=math.inf) for one in HOSPITALS]
    [seen] = seen_on("aggregate", answers(control), shares())
    assert (seen.public.mechanism.noise_multiplier, seen.public.mechanism.max_grad_norm) == (0.0, math.inf)


@pytest.mark.parametrize("surface", ["aggregate", "global_model"])
def test_no_single_hospitals_answer_can_be_reached_from_the_mean(surface: Surface) -> None:
    """Neither its update, in any scale, nor its name stands anywhere in what the adversary is handed."""
    sent = answers()
    [seen] = seen_on(surface, sent, shares())
    own: Mapping[str, Weights] = {answer.released.hospital: answer.released.delta for answer in sent}
    found = tensors(seen)
    assert any(".released.delta" in path for path in found)
    for path, tensor in found.items():
        for hospital, delta in own.items():
            for name, value in delta.items():
                if tensor.numel() == value.numel():
                    direction = torch.cosine_similarity(tensor.double().flatten(), value.flatten(), dim=0)
                    assert abs(float(direction)) < 0.99, f"{path} holds {name} of {hospital}"
    assert not set(own) & {value for _, value in reachable(seen) if isinstance(value, str)}
