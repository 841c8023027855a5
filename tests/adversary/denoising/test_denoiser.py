"""The denoiser: it restores what it never saw, does better than the filters it chooses from, and harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.denoising import Denoiser, check_images, train_denoiser
from hbdp_fed.adversary.denoising.candidates import LEVELS, candidates
from hbdp_fed.adversary.denoising.damage import colours, damaged
from hbdp_fed.adversary.denoising.net import ChoosingNet
from hbdp_fed.adversary.prior import fit_prior, posterior_mean, posterior_mean_at
from hbdp_fed.audit import mse
from hbdp_fed.data import load_dataset
from hbdp_fed.errors import SettingError
from hbdp_fed.models.planted import dct


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def phantoms() -> tuple[Tensor, Tensor]:
    """Public images and others."""
    sizes = {"image_size": 16, "num_train": 40, "num_val": 96, "num_test": 2}
    drawn = load_dataset("phantom", options=sizes)
    return drawn.val.images, drawn.train.images


@pytest.fixture(scope="module")
def denoiser(phantoms: tuple[Tensor, Tensor]) -> Denoiser:
    return train_denoiser(phantoms[0], steps=120, generator=stream())


def error(images: Tensor, originals: Tensor) -> float:
    return float(mse(images, originals).mean())


@pytest.mark.parametrize("std", [0.1, 0.3, 1.0])
def test_noise_is_taken_off_images_that_it_never_saw(
    std: float, denoiser: Denoiser, phantoms: tuple[Tensor, Tensor]
) -> None:
    public, private = phantoms
    noisy = (private + std * torch.randn(private.shape, generator=stream(1))).clamp(0.0, 1.0)
    restored = denoiser(noisy)
    assert restored.shape == private.shape
    assert 0 <= float(restored.min()) <= float(restored.max()) <= 1
    assert error(restored, private) < 0.7 * error(noisy, private)
    # Neither is it merely the mean image, where there is more to see.
    if std < 0.5:
        assert error(restored, private) < 0.8 * error(public.mean(dim=0).expand_as(private), private)


def test_it_loses_little_of_what_was_whole(denoiser: Denoiser, phantoms: tuple[Tensor, Tensor]) -> None:
    private = phantoms[1]
    assert error(denoiser(private), private) < 0.05 * error(phantoms[0].mean(dim=0).expand_as(private), private)


def test_the_same_stream_trains_the_same_and_a_file_keeps_it_bit_for_bit(
    phantoms: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    public, private = phantoms
    first, again = (train_denoiser(public, steps=2, generator=stream(3)) for _ in range(2))
    first.save(tmp_path / "denoiser.safetensors")
    expected = first(private)
    assert torch.equal(again(private), expected)
    assert torch.equal(Denoiser.load(tmp_path / "denoiser.safetensors")(private), expected)
    assert not torch.equal(train_denoiser(public, steps=2, generator=stream(4))(private), expected)


def test_volumes_and_colours_are_denoised_too() -> None:
    for shape in [(3, 12, 14), (1, 11, 12, 11)]:
        images = torch.rand(16, *shape, generator=stream())
        restored = train_denoiser(images, steps=1, generator=stream())(images[:2])
        assert restored.shape == (2, *shape)
        assert bool(restored.isfinite().all())


def test_nothing_rebuilt_is_nothing_to_clean(denoiser: Denoiser) -> None:
    assert denoiser(torch.zeros(0, 1, 16, 16)).shape == (0, 1, 16, 16)


def test_what_it_cannot_learn_from_or_clean_is_refused(denoiser: Denoiser) -> None:
    with pytest.raises(SettingError, match=r"adversary\.denoiser: needs at least 16 images .* got 15"):
        check_images(torch.zeros(15, 1, 16, 16))
    with pytest.raises(SettingError, match=r"at least 11 pixels a side, these have 10x16; set none"):
        check_images(torch.zeros(16, 1, 10, 16))
    with pytest.raises(ValueError, match=r"for images \(1, 16, 16\), got \(1, 20, 20\)"):
        denoiser(torch.zeros(1, 1, 20, 20))


# Its parts.


def test_equal_noise_is_filtered_as_record_by_record() -> None:
    prior = fit_prior(
        torch.randn(40, 30, dtype=torch.float64, generator=stream()) @ torch.rand(30, 30).double(), rank=4
    )
    measured = torch.randn(5, 30, dtype=torch.float64, generator=stream(1))
    for variance in (0.0, 0.3, 100.0):
        one_by_one = posterior_mean(prior, measured, torch.full_like(measured, variance))
        assert torch.allclose(posterior_mean_at(prior, measured, variance), one_by_one, rtol=1e-9, atol=1e-9)


def test_candidates_go_from_the_image_itself_to_the_mean(phantoms: tuple[Tensor, Tensor]) -> None:
    public, private = phantoms
    prior = fit_prior(dct(public.double()).flatten(start_dim=1), rank=8)
    offered = candidates(prior, private)
    assert offered.shape == (len(private), len(LEVELS) + 2, 1, 16, 16)
    assert torch.equal(offered[:, 0], private)
    assert torch.allclose(offered[:, -1], public.mean(dim=0).expand_as(private), atol=1e-5)
    # The stronger the noise that a filter is for, the nearer to the mean.
    distances = (offered - offered[:, -1:]).square().flatten(start_dim=2).mean(dim=2).mean(dim=0)
    assert distances.tolist() == sorted(distances.tolist(), reverse=True)


def test_the_net_without_an_addition_gives_a_mixture_of_what_it_is_offered() -> None:
    offered = torch.rand(2, 4, 1, 9, 9, generator=stream())
    net = ChoosingNet(candidates=4, channels=1, spatial_dims=2)
    with torch.no_grad():
        for parameter in net.layers[-1].parameters():
            parameter[-1:] = 0.0  # the addition's row
        mixed = net(offered)
    assert bool((mixed <= offered.amax(dim=1) + 1e-6).all())
    assert bool((mixed >= offered.amin(dim=1) - 1e-6).all())


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_colours_keep_the_noise_as_strong_as_white_noise(slope: float) -> None:
    amplitude = colours((7, 5), torch.full((1, 1, 1, 1), slope))
    assert amplitude.shape == (1, 1, 7, 5)
    assert float(amplitude.square().mean()) == pytest.approx(1.0, rel=1e-5)
    # By hand: at frequency (3, 4) the amplitude is (1 + 5)^-slope of that at (0, 0).
    assert float(amplitude[0, 0, 3, 4] / amplitude[0, 0, 0, 0]) == pytest.approx(6**-slope, rel=1e-5)


def test_damage_is_of_every_strength_and_stays_an_image(phantoms: tuple[Tensor, Tensor]) -> None:
    public = phantoms[0].repeat(4, 1, 1, 1)
    power = dct(public - public.mean(dim=0)).square().mean(dim=0)
    spoiled = damaged(public, mean=public.mean(dim=0), power=power, generator=stream())
    assert 0 <= float(spoiled.min()) <= float(spoiled.max()) <= 1
    errors = mse(spoiled, public)
    assert float(errors.min()) < 1e-3
    assert float(errors.max()) > 0.1
