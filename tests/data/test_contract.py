"""The contract of all data sets: a choice of records keeps everything together, and both forms of images are one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hbdp_fed.data.contract import Records, as_floats

COUNT = 7


def make_records() -> Records:
    """Every field of record n says n."""
    number = torch.arange(COUNT)
    words = np.asarray([str(n) for n in range(COUNT)])
    return Records(
        images=number.to(torch.uint8).view(COUNT, 1, 1, 1).expand(COUNT, 3, 4, 5),
        labels=number.clone(),
        masks=(number % 2 == 1).view(COUNT, 1, 1, 1).expand(COUNT, 1, 4, 5),
        groups=number + 100,
        names=words,
        attributes={"sex": words, "age": np.asarray([f"{n} years" for n in range(COUNT)])},
    )


@given(st.lists(st.integers(0, COUNT - 1)))
def test_a_choice_keeps_everything_of_a_record_together_and_in_its_order(chosen: list[int]) -> None:
    part = make_records().select(torch.tensor(chosen, dtype=torch.int64))
    assert len(part) == len(chosen)
    assert part.labels.tolist() == chosen
    assert part.images.shape == (len(chosen), 3, 4, 5)
    assert part.images[:, 0, 0, 0].tolist() == chosen
    assert part.masks is not None
    assert part.masks[:, 0, 0, 0].tolist() == [n % 2 == 1 for n in chosen]
    assert part.groups is not None
    assert part.groups.tolist() == [n + 100 for n in chosen]
    assert part.names is not None
    assert part.names.tolist() == [str(n) for n in chosen]
    assert set(part.attributes) == {"sex", "age"}
    assert part.attributes["age"].tolist() == [f"{n} years" for n in chosen]


def test_what_a_data_set_does_not_have_stays_absent() -> None:
    part = Records(images=torch.zeros((3, 1, 2, 2)), labels=torch.zeros(3, dtype=torch.int64)).select(torch.tensor([1]))
    assert part.masks is None
    assert part.groups is None
    assert part.names is None
    assert part.attributes == {}


@pytest.mark.parametrize("shape", [(COUNT, 3), (COUNT, 4, 5), (COUNT, 2, 4, 5)])
def test_labels_of_any_task_are_chosen_by_record(shape: tuple[int, ...]) -> None:
    labels = torch.arange(COUNT).view(COUNT, *(1 for _ in shape[1:])).expand(shape)
    part = Records(images=torch.zeros((COUNT, 1, 2, 2)), labels=labels).select(torch.tensor([5, 2]))
    assert part.labels.flatten(1)[:, 0].tolist() == [5, 2]
    assert part.labels.shape == (2, *shape[1:])


def test_a_choice_is_a_copy() -> None:
    records = make_records()
    records.select(torch.arange(COUNT)).labels.zero_()
    assert records.labels.tolist() == list(range(COUNT))


def test_bytes_become_the_nearest_floats_and_stay_bytes_themselves() -> None:
    stored = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = as_floats(stored)
    assert floats.dtype == torch.float32
    np.testing.assert_array_equal(floats.flatten(), (np.arange(256) / 255).astype(np.float32))
    assert stored.flatten().tolist() == list(range(256))


def test_floats_are_passed_on_untouched() -> None:
    images = torch.rand((2, 1, 4, 4))
    before = images.clone()
    assert as_floats(images) is images
    assert torch.equal(images, before)
