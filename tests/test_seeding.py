"""Streams are repeatable, and independent of each other."""

from __future__ import annotations

import torch

from hbdp_fed.seeding import augmentation_stream, batch_stream, generator, noise_stream, stream_seed


def test_a_stream_depends_on_its_name_alone() -> None:
    first = torch.rand(5, generator=generator(3, "a", 1))
    generator(3, "b")
    torch.rand(5)
    assert torch.equal(first, torch.rand(5, generator=generator(3, "a", 1)))


def test_every_part_of_the_name_matters() -> None:
    names = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "a1"), (0, "a", "1"), (0, 1, "a"), (0, "a")]
    assert len({stream_seed(*name) for name in names}) == len(names)
    assert all(0 <= stream_seed(*name) < 2**63 for name in names)


def test_the_draws_of_a_round_come_from_different_streams() -> None:
    streams = [stream(0, "hospital-01", 4) for stream in (batch_stream, noise_stream, augmentation_stream)]
    assert len({stream.initial_seed() for stream in streams}) == 3
