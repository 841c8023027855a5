"""What a perfect algorithm is granted of a step, against gradients that are computed and clipped one by one here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary import REALISTIC, RELAXED, THREAT_MODELS, WORST_CASE
from hbdp_fed.adversary.linear_probe import LinearProbeAttack
from hbdp_fed.audit.grants import GrantedRecord, grant_step_knowledge
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    StepKnowledge,
    ThreatModel,
)

CLIP = 0.7
CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4})
CLASS_WEIGHTS = (0.5, 2.0, 1.25)
SCALES = (1.0, 0.25, 0.25, 0.6, 1.0)
LABELS = torch.tensor([2, 0, 1, 1, 0])


def drawn(count: int, *, seed: int) -> Tensor:
    return torch.rand(count, 1, 10, 10, generator=torch.Generator().manual_seed(seed))


def observation(
    *,
    base: bool = False,
    clip: float = CLIP,
    threat_model: ThreatModel = RELAXED,
    weights: tuple[float, ...] | None = None,
) -> Observation:
    """Of the linear probe, or of the ordinary model that it stands in for."""
    public = PublicSideInformation(
        images=drawn(6, seed=1),
        mechanism=DpSgdParams(0.0 if math.isinf(clip) else 0.5, clip, sample_rate=0.1, steps=10),
        optimizer=OptimizerSettings(),
        expected_batch=5.0,
        class_weights=weights,
    )
    start = initial_weights(build_model(CNN), torch.Generator().manual_seed(3))
    spec, handed = LinearProbeAttack().craft(CNN, start, public, torch.Generator())
    if base:
        spec, handed = CNN, start
    released = ModelUpdate("hospital-01", 3, {name: torch.zeros_like(value) for name, value in handed.items()}, 50)
    return Observation(threat_model, spec, handed, released, public)


def gradients(seen: Observation, images: Tensor, labels: Tensor, *, views: int = 1) -> list[dict[str, Tensor]]:
    """Each record's clipped gradient by a backward pass of its own, float64."""
    model = build_model(seen.architecture)
    load_weights(model, seen.model_before)
    weights = None if seen.public.class_weights is None else torch.tensor(seen.public.class_weights)
    found = []
    for rows in torch.arange(len(images)).split(views):
        loss = functional.cross_entropy(model(images[rows]), labels[rows], weight=weights, reduction="sum") / views
        parts = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(float(part.double().square().sum()) for part in parts))
        factor = min(1.0, seen.public.mechanism.max_grad_norm / norm) if norm else 1.0
        names = [name for name, _ in model.named_parameters()]
        found.append({name: factor * part.double() for name, part in zip(names, parts, strict=True)})
    return found


def granted(
    seen: Observation,
    images: Tensor,
    labels: Tensor,
    *,
    scales: tuple[float, ...] = SCALES,
    views: int = 1,
    rows: int = 3,
) -> list[GrantedRecord]:
    return list(grant_step_knowledge(seen, images, labels, scales=scales, multiplicity=views, max_physical_batch=rows))


def knowledge(record: GrantedRecord) -> StepKnowledge:
    assert record.observation.knowledge is not None
    return record.observation.knowledge


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("base", [False, True], ids=["probe", "cnn"])
def test_others_and_own_add_up_to_the_clipped_sum_of_the_step(
    base: bool, weights: tuple[float, ...] | None, views: int
) -> None:
    seen = observation(base=base, weights=weights)
    images, labels = drawn(5 * views, seed=2), LABELS.repeat_interleave(views)
    by_hand = gradients(seen, images, labels, views=views)
    records = granted(seen, images, labels, views=views)
    assert len(records) == 5
    for own, record, scale in zip(by_hand, records, SCALES, strict=True):
        others = knowledge(record).others
        assert list(others) == list(own)
        for name, value in others.items():
            total = sum((s * one[name] for s, one in zip(SCALES, by_hand, strict=True)), torch.zeros(()))
            assert value.dtype == torch.float64
            torch.testing.assert_close(value + scale * own[name], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("views", [1, 2])
# Where nothing is clipped, what a class weighs shows in the gradient's length.
@pytest.mark.parametrize(
    ("clip", "weights"),
    [(CLIP, None), (math.inf, None), (math.inf, CLASS_WEIGHTS)],
    ids=["clipped", "unclipped", "unclipped and weighted"],
)
def test_the_factor_times_the_image_is_what_the_record_counted(
    clip: float, weights: tuple[float, ...] | None, views: int
) -> None:
    seen = observation(clip=clip, weights=weights)
    images, labels = drawn(5 * views, seed=2), LABELS.repeat_interleave(views)
    by_hand = gradients(seen, images, labels, views=views)
    for place, (own, record) in enumerate(zip(by_hand, granted(seen, images, labels, views=views), strict=True)):
        # Of several views the gradient shows the mean.
        image = images[place * views : (place + 1) * views].mean(dim=0)
        torch.testing.assert_close(record.image, image, rtol=0, atol=1e-6)
        counted = SCALES[place] * own["probe.weight"].flatten()
        torch.testing.assert_close(
            knowledge(record).factor * image.double().flatten(), counted, rtol=1e-4, atol=1e-6 * float(counted.norm())
        )
        assert record.clipped is math.isfinite(clip)


def test_the_sign_of_the_factor_tells_the_records_class_and_no_more() -> None:
    """The probe's one output is the first class's: only its own records pull it up."""
    factors = [knowledge(record).factor for record in granted(observation(), drawn(5, seed=2), LABELS)]
    assert [factor < 0 for factor in factors] == (LABELS == 0).tolist()


def test_a_record_counts_by_its_scale_and_the_others_by_theirs() -> None:
    seen, images = observation(), drawn(5, seed=2)
    plain = granted(seen, images, LABELS, scales=(1.0,) * 5)
    scaled = granted(seen, images, LABELS, scales=(0.5, 1.0, 1.0, 1.0, 1.0))
    assert [record.scale for record in scaled] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert knowledge(scaled[0]).factor == pytest.approx(0.5 * knowledge(plain[0]).factor)
    assert knowledge(scaled[1]).factor == pytest.approx(knowledge(plain[1]).factor)
    # Its own scale is no matter of the others'.
    name = "probe.weight"
    torch.testing.assert_close(
        knowledge(scaled[0]).others[name], knowledge(plain[0]).others[name], rtol=1e-9, atol=1e-12
    )
    half = 0.5 * gradients(seen, images[:1], LABELS[:1])[0][name]
    torch.testing.assert_close(
        knowledge(scaled[1]).others[name] + half, knowledge(plain[1]).others[name], rtol=1e-5, atol=1e-6
    )
    # Whether the clipping norm was reached is asked before scaling.
    assert all(record.clipped for record in scaled)


def test_what_is_granted_of_the_others_does_not_depend_on_the_record_itself() -> None:
    """Another patient in its place, of another class: to the last digits, the others come to the same."""
    seen, images, labels = observation(), drawn(5, seed=2), LABELS.clone()
    before = granted(seen, images, labels)
    images[2], labels[2] = drawn(1, seed=9)[0], 0
    after = granted(seen, images, labels)
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        moved = knowledge(one).others["probe.weight"] - knowledge(other).others["probe.weight"]
        assert (float(moved.abs().max()) < 1e-13) is (place == 2)


def test_a_record_below_the_clipping_norm_is_said_to_be() -> None:
    images = drawn(5, seed=2)
    seen = observation()
    images[1] = 0.0
    images[1, 0, 4, 5] = 1e-6
    assert [record.clipped for record in granted(seen, images, LABELS)] == [True, False, True, True, True]


def test_of_a_black_record_there_is_nothing_to_know() -> None:
    seen, images = observation(), drawn(5, seed=2)
    images[3] = 0.0
    records = granted(seen, images, LABELS)
    assert knowledge(records[3]).factor == 0.0
    assert not records[3].clipped
    assert all(knowledge(record).factor for place, record in enumerate(records) if place != 3)
    # What the others come to is the whole sum.
    by_hand = gradients(seen, images, LABELS)
    total = sum((s * one["probe.weight"] for s, one in zip(SCALES, by_hand, strict=True)), torch.zeros(()))
    torch.testing.assert_close(knowledge(records[3]).others["probe.weight"], total, rtol=1e-5, atol=1e-6)


def test_how_many_rows_are_differentiated_at_once_makes_no_difference() -> None:
    seen, images, labels = observation(), drawn(10, seed=2), LABELS.repeat_interleave(2)
    first, second = (granted(seen, images, labels, views=2, rows=rows) for rows in (2, 100))
    for one, other in zip(first, second, strict=True):
        assert knowledge(one).factor == pytest.approx(knowledge(other).factor, rel=1e-5)


def test_nobody_is_granted_anything_of_a_step_that_drew_nobody() -> None:
    assert granted(observation(), drawn(0, seed=2), LABELS[:0], scales=()) == []


def test_a_grant_adds_others_and_factor_to_what_was_seen_and_nothing_else() -> None:
    seen = observation()
    for record in granted(seen, drawn(5, seed=2), LABELS):
        assert replace(record.observation, knowledge=None) == seen
    assert {field.name for field in dataclasses.fields(StepKnowledge)} == {"others", "factor"}


@pytest.mark.parametrize("threat_model", THREAT_MODELS.values(), ids=THREAT_MODELS)
def test_only_a_perfect_algorithm_is_granted_anything(threat_model: ThreatModel) -> None:
    seen, images = observation(threat_model=threat_model), drawn(5, seed=2)
    if threat_model.perfect_algorithm:
        assert len(granted(seen, images, LABELS)) == 5
    else:
        with pytest.raises(ValueError, match="the realistic threat model grants no knowledge"):
            granted(seen, images, LABELS)
    assert (RELAXED.perfect_algorithm, WORST_CASE.perfect_algorithm, REALISTIC.perfect_algorithm) == (True, True, False)
