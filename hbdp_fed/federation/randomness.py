"""Where a hospital's random draws come from: the run's seed in a simulation, the operating system in a deployment."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch

from hbdp_fed.dpsgd import NoiseSource, secure_noise, seeded_noise
from hbdp_fed.federation.secure_sum import ByteSource, seeded_bytes
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.seeding import augmentation_stream, batch_stream, noise_stream

# The state of PyTorch's CPU generator, a Mersenne twister: 24 bytes of counters, then its words, 32 bits in 64 each.
_COUNTER_BYTES, _WORDS = 24, 624


@dataclass(frozen=True)
class Randomness:
    """One hospital's draws of one round.

    Attributes:
        noise: The Gaussian mechanism's.
        batches: A CPU generator for the Poisson batches.
        augmentation: A CPU generator for the views of records.
    """

    noise: NoiseSource
    batches: torch.Generator
    augmentation: torch.Generator


def round_randomness(settings: AppSettings, hospital: str, round: int, device: torch.device) -> Randomness:
    """The draws that ``settings`` ask for: from the seed, or noise that nobody can repeat and batches nobody knows.

    Args:
        settings: Of the federation.
        hospital: Its name.
        round: The request's number.
        device: Where the hospital computes. Seeded noise is drawn there; batches are the same everywhere.
    """
    replayable = settings.replayable_batches
    return Randomness(
        noise=secure_noise()
        if settings.secure_noise
        else seeded_noise(noise_stream(settings.seed, hospital, round, device)),
        batches=batch_stream(settings.seed, hospital, round) if replayable else unpredictable_generator(),
        augmentation=augmentation_stream(settings.seed, hospital, round) if replayable else unpredictable_generator(),
    )


def secret_source(settings: AppSettings, hospital: str, round: int, purpose: str) -> ByteSource:
    """Where a hospital's secrets for one sum come from: with seeded noise from the seed, else the operating system.

    Args:
        settings: Of the federation.
        hospital: Its name.
        round: Of the sum.
        purpose: What is drawn; each has a stream of its own.
    """
    if settings.secure_noise:
        return os.urandom
    return seeded_bytes(settings.seed, hospital, round, "secure sum", purpose)


def unpredictable_generator() -> torch.Generator:
    """A CPU generator whose whole state comes from the operating system.

    A seed would not do: PyTorch's CPU generator uses 32 bits of it, and so many streams can be tried one by one. The
    generator stays a Mersenne twister all the same: whoever saw some twenty thousand bits of its output could compute
    the rest. Nobody sees them, only what a batch did to a noisy sum.
    """
    generator = torch.Generator()
    state = generator.get_state().numpy()
    words = np.frombuffer(os.urandom(4 * _WORDS), dtype=np.uint32).astype(np.uint64)
    state[_COUNTER_BYTES : _COUNTER_BYTES + 8 * _WORDS] = words.view(np.uint8)
    return generator.set_state(torch.from_numpy(state))
