"""Where a hospital's draws come from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hbdp_fed.federation.randomness import Randomness, round_randomness, unpredictable_generator
from hbdp_fed.federation.settings import AppSettings

CPU = torch.device("cpu")


def drawn(randomness: Randomness) -> dict[str, list[float]]:
    return {
        "noise": randomness.noise((4,), CPU).tolist(),
        "batches": torch.rand(4, generator=randomness.batches).tolist(),
        "augmentation": torch.rand(4, generator=randomness.augmentation).tolist(),
    }


@pytest.mark.parametrize(
    ("secure_noise", "replayable_batches", "repeated"),
    [
        (False, True, {"noise", "batches", "augmentation"}),
        (True, True, {"batches", "augmentation"}),
        (True, False, set()),
        (False, False, {"noise"}),
    ],
)
def test_exactly_the_seeded_draws_repeat(
    settings: AppSettings, secure_noise: bool, replayable_batches: bool, repeated: set[str]
) -> None:
    settings = replace(settings, secure_noise=secure_noise, replayable_batches=replayable_batches)
    first, again = (drawn(round_randomness(settings, "hospital-01", 2, CPU)) for _ in range(2))
    assert {name for name in first if first[name] == again[name]} == repeated


def test_rounds_hospitals_and_purposes_have_draws_of_their_own(settings: AppSettings) -> None:
    found = [
        drawn(round_randomness(settings, name, number, CPU))
        for name in ("hospital-01", "hospital-02")
        for number in (1, 2)
    ]
    values = [tuple(value) for one in found for value in one.values()]
    assert len(set(values)) == len(values) == 12


def test_an_unpredictable_generator_draws_uniformly_and_never_the_same() -> None:
    first, second = unpredictable_generator(), unpredictable_generator()
    values = torch.rand(40_000, generator=first, dtype=torch.float64)
    assert not torch.equal(values, torch.rand(40_000, generator=second, dtype=torch.float64))
    counts = torch.histc(values, bins=20, min=0, max=1)
    # Chi-squared with 19 degrees of freedom exceeds 60 once in two hundred thousand runs.
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 60
    assert abs(float(torch.corrcoef(values.view(2, -1))[0, 1])) < 0.04


def test_no_32_bit_seed_stands_behind_an_unpredictable_generator() -> None:
    """PyTorch's seeding fills the Mersenne twister's words from 32 bits: each word follows from the one before."""

    def follows(generator: torch.Generator) -> bool:
        words = generator.get_state()[24 : 24 + 8 * 624].view(torch.int64)
        return all(
            int(words[i]) == (1812433253 * (int(words[i - 1]) ^ (int(words[i - 1]) >> 30)) + i) % 2**32
            for i in range(1, 10)
        )

    assert follows(torch.Generator().manual_seed(2**40 + 3))
    assert not follows(unpredictable_generator())
