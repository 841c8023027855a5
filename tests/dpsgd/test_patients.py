"""Patients as units of privacy: how they are drawn, and how their gradients are clipped together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd import (
    GRAD_MODES,
    clipped_record_gradients,
    clipped_summer,
    flattened,
    num_units,
    patient_batches,
    plain_summer,
    record_losses,
    unit_batches,
)
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
COUNTS = torch.tensor([1, 1, 2, 2, 3, 4])
RECORDS = int(COUNTS.sum())


def model() -> nn.Module:
    net = build_model(SPEC)
    load_weights(net, initial_weights(net, generator(0, "weights")))
    return net.double()


def rows(multiplicity: int, records: int = RECORDS) -> tuple[Tensor, Tensor]:
    count = records * multiplicity
    images = torch.rand(count, 1, 12, 12, generator=generator(0, "images"), dtype=torch.float64)
    return images, torch.randint(0, 2, (count,), generator=generator(0, "labels"))


def by_hand(net: nn.Module, images: Tensor, labels: Tensor, counts: Tensor, views: int, clip: float) -> list[Tensor]:
    """Each patient's clipped gradient the simple way: row by row, averaged, clipped."""
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return record_losses(torch.func.functional_call(net, values, (image[None],)), label[None]).sum()

    found, start = [], 0
    for count in counts.tolist():
        own = range(start * views, (start + count) * views)
        gradients = [torch.func.grad(loss)(parameters, images[row], labels[row]) for row in own]
        mean = torch.stack([torch.cat([g[name].flatten() for name in parameters]) for g in gradients]).mean(dim=0)
        found.append(mean * min(1.0, clip / float(mean.norm())))
        start += count
    return found


@pytest.mark.parametrize("multiplicity", [1, 2])
@pytest.mark.parametrize("grad_mode", sorted(GRAD_MODES))
def test_patients_are_averaged_over_records_and_views_and_then_clipped(grad_mode: str, multiplicity: int) -> None:
    images, labels = rows(multiplicity)
    plain = by_hand(model(), images, labels, COUNTS, multiplicity, math.inf)
    # A clipping norm between the patients' own: some are clipped, some are not.
    clip = float(torch.stack([gradient.norm() for gradient in plain]).median())
    expected = by_hand(model(), images, labels, COUNTS, multiplicity, clip)
    net = model()
    summer = clipped_summer(
        net, max_grad_norm=clip, max_physical_batch=64, multiplicity=multiplicity, grad_mode=grad_mode
    )
    found = summer(images, labels, COUNTS)
    torch.testing.assert_close(flattened(found.total, net), torch.stack(expected).sum(dim=0))
    torch.testing.assert_close(found.norms.double(), torch.stack([gradient.norm() for gradient in plain]))
    assert (found.num_units, found.num_records) == (len(COUNTS), RECORDS)


def test_the_control_sums_the_patients_mean_gradients_without_clipping() -> None:
    images, labels = rows(2)
    net = model()
    found = plain_summer(net, max_physical_batch=5, multiplicity=2)(images, labels, COUNTS)
    expected = torch.stack(by_hand(net, images, labels, COUNTS, 2, math.inf)).sum(dim=0)
    torch.testing.assert_close(flattened(found.total, net), expected)


@pytest.mark.parametrize("records", [1, 2, 7])
@pytest.mark.parametrize("grad_mode", sorted(GRAD_MODES))
def test_a_patient_moves_the_clipped_sum_by_at_most_the_clipping_norm(grad_mode: str, records: int) -> None:
    others, clip = torch.tensor([1, 2, 4]), 0.05
    images, labels = rows(1, records=7 + records)
    everybody, order = torch.cat([others, torch.tensor([records])]).sort(stable=True)
    parts = torch.arange(7 + records).split(torch.cat([others, torch.tensor([records])]).tolist())
    with_patient = torch.cat([parts[place] for place in order.tolist()])
    without = torch.arange(7)
    net = model()
    summer = clipped_summer(net, max_grad_norm=clip, max_physical_batch=64, grad_mode=grad_mode)

    def moved(counts: Tensor | None, counts_without: Tensor | None) -> float:
        total = summer(images[with_patient], labels[with_patient], counts).total
        less = summer(images[without], labels[without], counts_without).total
        return float((flattened(total, net) - flattened(less, net)).norm())

    # This patient's gradient is longer than the clipping norm, so that the bound is reached.
    assert moved(everybody, others) == pytest.approx(clip, rel=1e-6)
    if records > 1:
        assert moved(None, None) > 1.2 * clip  # where each record is a unit, a patient of several moves it further


def test_cutting_a_batch_into_parts_changes_no_sum() -> None:
    images, labels = rows(2)
    net = model()
    whole = clipped_summer(net, max_grad_norm=0.1, max_physical_batch=64, multiplicity=2)(images, labels, COUNTS)
    for most in (1, 3, 6):
        cut = clipped_summer(net, max_grad_norm=0.1, max_physical_batch=most, multiplicity=2)(images, labels, COUNTS)
        torch.testing.assert_close(flattened(cut.total, net), flattened(whole.total, net))
        assert cut.loss == pytest.approx(whole.loss)


def test_rows_are_cut_at_no_more_than_the_physical_batch_unless_one_patient_has_more() -> None:
    sizes: list[int] = []
    net = model()
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    images, labels = rows(1)
    clipped_summer(net, max_grad_norm=0.1, max_physical_batch=2)(images, labels, COUNTS)
    assert sizes == [2, 2, 2, 3, 4]


def test_the_terms_of_the_sum_are_one_a_patient() -> None:
    images, labels = rows(2)
    net = model()
    terms = clipped_record_gradients(
        net, images, labels, COUNTS, max_grad_norm=0.1, max_physical_batch=7, multiplicity=2
    )
    expected = torch.stack(by_hand(net, images, labels, COUNTS, 2, 0.1))
    torch.testing.assert_close(terms, expected)


def test_patients_of_one_record_are_what_records_are() -> None:
    images, labels = rows(1)
    net = model()
    summer = clipped_summer(net, max_grad_norm=0.1, max_physical_batch=64)
    alone = summer(images, labels, torch.ones(RECORDS, dtype=torch.int64))
    assert torch.equal(flattened(alone.total, net), flattened(summer(images, labels).total, net))


def test_an_empty_batch_of_patients_is_a_sum_of_zeros() -> None:
    net = model()
    none = torch.empty(0, dtype=torch.int64)
    found = clipped_summer(net, max_grad_norm=0.1, max_physical_batch=64)(torch.empty(0, 1, 12, 12), none, none)
    assert (found.num_units, found.num_records) == (0, 0)
    assert float(flattened(found.total, net).abs().max()) == 0


@pytest.mark.parametrize("counts", [[4, 1], [1, 3], [0, 5], [6]])
def test_counts_that_do_not_fit_the_rows_are_refused(counts: list[int]) -> None:
    images, labels = rows(1, records=5)
    with pytest.raises(ValueError, match="counts must be ascending, from 1 on, and add up to 5"):
        clipped_summer(model(), max_grad_norm=0.1, max_physical_batch=64)(images, labels, torch.tensor(counts))


GROUPS = torch.tensor([40, 7, 7, -3, 40, 7, 7, 9, 7, -3])
"""Patient 7 has five records, 40 and -3 have two, 9 has one."""


def drawn(rate: float, steps: int, most: int = 3, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    batches = patient_batches(
        groups=GROUPS, records_per_patient=most, sample_rate=rate, steps=steps, generator=generator(seed, "b")
    )
    return [(batch.members.tolist(), [] if batch.counts is None else batch.counts.tolist()) for batch in batches]


def test_patients_enter_independently_at_the_sample_rate_with_at_most_so_many_records() -> None:
    steps, names = 1500, [-3, 7, 9, 40]
    there = torch.zeros(steps, len(names))
    for step, (members, counts) in enumerate(drawn(0.3, steps)):
        own = GROUPS[members].tolist()
        found = sorted(set(own), key=own.index)
        assert [own.count(name) for name in found] == counts == sorted(counts)
        assert own == [name for name, count in zip(found, counts, strict=True) for _ in range(count)]
        assert len(set(members)) == len(members)
        assert [own.count(name) for name in found] == [min(3, int((name == GROUPS).sum())) for name in found]
        there[step, [names.index(name) for name in found]] = 1
    # Four standard deviations of the mean of so many draws.
    assert (there.mean(dim=0) - 0.3).abs().max() < 4 * math.sqrt(0.21 / steps)
    assert torch.corrcoef(there.T).fill_diagonal_(0).abs().max() < 4 / math.sqrt(steps)


def test_which_records_a_patient_gives_is_drawn_anew_and_evenly() -> None:
    steps = 1500
    seen = torch.zeros(len(GROUPS))
    choices = set()
    for members, _ in drawn(1.0, steps):
        seen[members] += 1
        choices.add(tuple(row for row in members if GROUPS[row] == 7))
    own = (GROUPS == 7).nonzero().flatten()
    assert (seen[own] / steps - 3 / 5).abs().max() < 4 * math.sqrt(0.24 / steps)
    assert bool((seen[GROUPS != 7] == steps).all())
    assert len(choices) == math.comb(5, 3)


def test_the_same_stream_draws_the_same_batches() -> None:
    assert drawn(0.5, 20) == drawn(0.5, 20)
    assert drawn(0.5, 20) != drawn(0.5, 20, seed=1)


def test_others_are_drawn_alike_whether_a_patient_is_there_or_not() -> None:
    # In law: the frequencies of the others' choices are the same without patient 9.
    without = GROUPS != 9
    steps = 1500
    rest = patient_batches(
        groups=GROUPS[without], records_per_patient=3, sample_rate=0.5, steps=steps, generator=generator(1, "b")
    )
    kept = torch.zeros(len(GROUPS))
    for batch in rest:
        kept[without.nonzero().flatten()[batch.members]] += 1
    whole = torch.zeros(len(GROUPS))
    for members, _ in drawn(0.5, steps):
        whole[members] += 1
    assert ((kept - whole)[without] / steps).abs().max() < 4 * math.sqrt(2 * 0.25 / steps)


def test_either_unit_has_its_batches_and_its_number() -> None:
    def batches(most: int | None) -> list[tuple[list[int], bool]]:
        found = unit_batches(
            num_records=10,
            groups=GROUPS,
            records_per_patient=most,
            sample_rate=1.0,
            steps=1,
            generator=generator(0, "b"),
        )
        return [(batch.members.tolist(), batch.counts is None) for batch in found]

    assert batches(None) == [(list(range(10)), True)]
    assert batches(1)[0][1] is False
    assert len(batches(1)[0][0]) == num_units(10, GROUPS, 1) == 4
    assert num_units(10, GROUPS, None) == 10


def test_patients_that_nobody_names_are_refused() -> None:
    with pytest.raises(ValueError, match="not each of the 10 records has one"):
        num_units(10, None, 4)
    with pytest.raises(ValueError, match="not each of the 11 records has one"):
        next(
            unit_batches(
                num_records=11,
                groups=GROUPS,
                records_per_patient=4,
                sample_rate=0.5,
                steps=1,
                generator=generator(0, "b"),
            )
        )
    with pytest.raises(ValueError, match="records_per_patient must be at least 1"):
        drawn(0.5, 1, most=0)
