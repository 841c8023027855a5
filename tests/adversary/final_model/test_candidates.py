"""Candidates of the same record become one."""

from __future__ import annotations

import torch

from hbdp_fed.adversary.final_model.candidates import merged


def far_apart(count: int) -> torch.Tensor:
    return torch.eye(count).reshape(count, 1, 1, count) + 0.2


def test_candidates_that_are_alike_become_their_weighted_mean() -> None:
    first, second, third = far_apart(3)
    near = first + 0.01
    images, sums = merged(torch.stack([second, first, near, third]), torch.tensor([1.5, 1.0, 3.0, 0.1]), alike=0.95)
    torch.testing.assert_close(sums, torch.tensor([4.0, 1.5, 0.1]))
    torch.testing.assert_close(images, torch.stack([(first + 3 * near) / 4, second, third]))


def test_a_record_shared_by_many_candidates_comes_before_a_single_surer_one() -> None:
    first, second = far_apart(2)
    _, sums = merged(torch.stack([second, first, first, first]), torch.tensor([2.0, 1.0, 1.0, 1.0]), alike=0.95)
    torch.testing.assert_close(sums, torch.tensor([3.0, 2.0]))


def test_a_single_candidate_and_equal_ones_are_kept() -> None:
    image = far_apart(1)
    assert torch.equal(merged(image, torch.ones(1), alike=0.95)[0], image)
    images, sums = merged(image.expand(3, -1, -1, -1), torch.ones(3), alike=0.95)
    # All lie at their own mean and have no direction to be compared by.
    assert len(images) == 3
    assert bool(images.isfinite().all())
    assert float(sums.sum()) == 3
