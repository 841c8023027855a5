"""Every random stream of a run, derived from the seed and the stream's own name.

Two streams with different names are independent for all practical purposes, and none depends on the order in which
streams are drawn: an attack or a probe can be added to a run without changing a bit of its training.

These streams make a simulation repeatable. Whoever knows the seed knows the noise, so they protect nobody: noise that
has to protect must be seeded by the operating system.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *name: int | str) -> int:
    """The 63-bit seed of the stream called ``name``.

    Args:
        seed: The run's seed, a non-negative integer.
        name: The parts of the stream's name, for example ``("hospital-2", 7, "noise")``. Integers and strings differ:
            ``1`` and ``"1"`` name two streams.

    Returns:
        An integer in [0, 2**63).
    """
    text = "\x1f".join(repr(part) for part in (seed, *name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *name: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of the stream called ``name`` (see :func:`stream_seed`)."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *name))


def batch_stream(seed: int, hospital: str, round: int) -> torch.Generator:
    """The stream of one hospital's Poisson batches in one round. The audit replays it to learn who was in a batch."""
    return generator(seed, hospital, round, "batches")


def noise_stream(seed: int, hospital: str, round: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The stream of one hospital's noise in one round; another kind of device has another stream."""
    return generator(seed, hospital, round, "noise", device=device)


def augmentation_stream(seed: int, hospital: str, round: int) -> torch.Generator:
    """The stream of one hospital's random views of its records in one round."""
    return generator(seed, hospital, round, "augmentation")
