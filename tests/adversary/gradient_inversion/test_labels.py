"""Labels from a release, against the truth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hbdp_fed.adversary.gradient_inversion.labels import find_head, nearest_counts, recover_labels
from hbdp_fed.adversary.gradient_inversion.victim import cast_dummies, imagine, released_target
from hbdp_fed.models import build_model
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images
from tests.adversary.gradient_inversion.releases import sent, with_public

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 4, "width": 8})
RESNET = ModelSpec("resnet9", {"in_channels": 1, "num_classes": 4, "width": 8})
IMAGES = smooth_images(12, size=16, seed=3)


def recovered(labels: torch.Tensor, spec: ModelSpec = CNN, **release: object) -> list[int]:
    observation = sent(IMAGES[: len(labels)], labels, spec=spec, precision="float32", **release)  # type: ignore[arg-type]
    cast = cast_dummies(observation.public, most_records=16)
    victim = imagine(observation, cast=cast, device="cpu")
    return sorted(
        recover_labels(released_target(observation, victim), victim, cast, observation.public.images).tolist()
    )


@pytest.mark.parametrize("spec", [CNN, RESNET], ids=lambda spec: spec.name)
@pytest.mark.parametrize("clip", [math.inf, 0.1])
@pytest.mark.parametrize("label", range(4))
def test_the_label_of_one_record_is_read_off(label: int, clip: float, spec: ModelSpec) -> None:
    assert recovered(torch.tensor([label]), spec, clip=clip) == [label]


@pytest.mark.parametrize("clip", [math.inf, 0.1])
@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [3, 3, 3, 3], [0, 1, 2, 3, 3, 3, 1, 0], [2] * 11 + [0]], ids=str)
def test_the_labels_of_several_records_are_counted(labels: list[int], clip: float) -> None:
    assert recovered(torch.tensor(labels), clip=clip) == sorted(labels)


def test_labels_are_counted_under_class_weights() -> None:
    weights = (2.0, 1.0, 0.5, 1.0)
    assert recovered(torch.tensor([0, 2, 2, 2, 3]), class_weights=weights) == [0, 2, 2, 2, 3]


@pytest.mark.parametrize("labels", [[1], [0, 0, 1, 2]], ids=str)
def test_labels_are_read_off_several_local_steps(labels: list[int]) -> None:
    assert recovered(torch.tensor(labels), steps=3, optimizer=OptimizerSettings("sgd", 0.01, 0.9)) == labels


@pytest.mark.parametrize("labels", [[1], [0, 0, 1, 2]], ids=str)
def test_a_little_noise_leaves_the_labels(labels: list[int]) -> None:
    assert recovered(torch.tensor(labels), clip=1.0, sigma=0.02) == labels


@pytest.mark.parametrize("sigma", [1e2, 1e12])
@pytest.mark.parametrize("count", [1, 4])
def test_much_noise_leaves_labels_of_the_right_number_and_range(count: int, sigma: float) -> None:
    labels = recovered(torch.zeros(count, dtype=torch.int64), clip=1.0, sigma=sigma)
    assert len(labels) == count
    assert set(labels) <= {0, 1, 2, 3}


def test_more_noise_is_withstood_by_all_features_than_by_the_bias_alone() -> None:
    """The rows of the head say the same many times over; the bias is one coordinate."""
    right = {"head": 0, "bias": 0}
    for seed in range(40):
        label, sigma, noise = seed % 4, 0.3, stream(seed)
        observation = sent(IMAGES[seed % 12][None], torch.tensor([label]), spec=CNN, clip=1.0, precision="float32")
        observation = with_public(observation, mechanism=DpSgdParams(sigma, 1.0, 1.0, 1))
        cast = cast_dummies(observation.public, most_records=16)
        victim = imagine(observation, cast=cast, device="cpu")
        target = [
            value + sigma * torch.randn(value.shape, generator=noise, dtype=torch.float64)
            for value in released_target(observation, victim)
        ]
        bias = target[list(victim.parameters).index("head.bias")]
        right["bias"] += int(bias.argmin()) == label
        right["head"] += recover_labels(target, victim, cast, observation.public.images).tolist() == [label]
    assert right["head"] > right["bias"] + 5


def test_labels_of_several_steps_are_dealt_to_all_of_them() -> None:
    observation = sent(IMAGES[:4], torch.tensor([0, 0, 1, 1]), spec=CNN, steps=2, precision="float32")
    mechanism = observation.public.mechanism
    observation = with_public(observation, mechanism=type(mechanism)(0.0, math.inf, 0.5, 2))
    cast = cast_dummies(observation.public, most_records=16)
    assert cast.records == 8
    victim = imagine(observation, cast=cast, device="cpu")
    labels = recover_labels(released_target(observation, victim), victim, cast, observation.public.images)
    assert sorted(labels.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
    for step in cast.steps:
        assert sorted(labels[list(step)].tolist()) == [0, 0, 1, 1]


# The head.


def test_the_head_is_the_last_linear_layer() -> None:
    head = find_head(build_model(CNN).double(), IMAGES.double())
    assert head is not None
    assert (head.weight, head.bias) == ("head.weight", "head.bias")


def test_a_net_without_a_linear_head_is_read_by_its_whole_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from hbdp_fed.adversary.gradient_inversion import labels

    monkeypatch.setattr(labels, "find_head", lambda model, images: None)
    for truth in ([1], [0, 0, 1, 2]):
        assert recovered(torch.tensor(truth)) == truth


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        # Its last linear layer makes no logits.
        nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.Flatten()),
    ],
)
def test_what_is_no_head_is_not_taken_for_one(net: nn.Module) -> None:
    assert find_head(net.double(), IMAGES.double()) is None


def test_a_head_without_a_bias_will_do() -> None:
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(256, 3, bias=False)).double()
    head = find_head(net, IMAGES.double())
    assert head is not None
    assert head.bias is None
    torch.testing.assert_close(head.mean, IMAGES.double().flatten(start_dim=1).mean(dim=0))


def test_without_noise_a_head_is_read_by_its_bias_and_with_noise_by_all_of_it() -> None:
    head = find_head(build_model(CNN).double(), IMAGES.double())
    assert head is not None
    alone = torch.zeros_like(head.mean)
    alone[-1] = 1.0
    torch.testing.assert_close(head.direction(0.0), alone, rtol=0, atol=1e-2)
    for noise in (1e6, math.inf):
        direction = head.direction(noise)
        torch.testing.assert_close(direction, head.mean / head.mean.square().sum(), rtol=1e-3, atol=1e-4)
        assert float(direction @ head.mean) == pytest.approx(1.0)


# Counting.


@pytest.mark.parametrize("counts", [[4, 0, 0], [1, 2, 1], [0, 0, 1], [7, 8, 1]], ids=str)
def test_counts_are_found_exactly_where_they_fit_exactly(counts: list[int]) -> None:
    columns = torch.randn(5, 3, generator=stream(1), dtype=torch.float64)
    truth = torch.tensor(counts)
    assert torch.equal(nearest_counts(columns, columns @ truth.double(), total=sum(counts)), truth)


def test_counts_are_the_best_of_all_where_nothing_fits() -> None:
    columns = torch.randn(5, 3, generator=stream(2), dtype=torch.float64)
    for seed in range(20):
        seen = 4 * torch.randn(5, generator=stream(seed), dtype=torch.float64)
        found = nearest_counts(columns, seen, total=4)
        every = [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]
        misfit = {n: float((columns @ torch.tensor(n).double() - seen).norm()) for n in every}
        assert misfit[tuple(found.tolist())] == pytest.approx(min(misfit.values()))


@pytest.mark.parametrize("columns", [torch.zeros(5, 3), torch.ones(5, 3)], ids=["nothing", "all alike"])
def test_classes_that_cannot_be_told_apart_still_give_counts(columns: torch.Tensor) -> None:
    found = nearest_counts(columns.double(), torch.ones(5, dtype=torch.float64), total=4)
    assert int(found.sum()) == 4
    assert int(found.min()) >= 0
