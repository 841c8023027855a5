"""The code of the images, beside scipy's transform and plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from hbdp_fed.adversary.planted import code as code_module
from hbdp_fed.adversary.planted.code import Code, coefficients_of, fit_code, images_of, in_chunks, read_code
from hbdp_fed.models.planted import Spectrum
from tests.adversary.conftest import smooth_images


def images_with(sides: tuple[int, ...], *, count: int = 5, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, *sides, generator=torch.Generator().manual_seed(seed))


def some_code(shape: tuple[int, ...], *, seed: int = 0) -> Code:
    generator = torch.Generator().manual_seed(seed)
    gains, centre = (torch.rand(math.prod(shape), dtype=torch.float64, generator=generator) for _ in range(2))
    return Code(image_shape=shape, gains=gains + 0.5, centre=centre)


@pytest.mark.parametrize("sides", [(12, 15), (11, 12, 13)])
def test_an_image_is_coded_as_its_scaled_and_shifted_cosine_transform(sides: tuple[int, ...]) -> None:
    images = images_with(sides)
    code = some_code((2, *sides))
    transform = dctn(images.double().numpy(), axes=tuple(range(2, 2 + len(sides))), norm="ortho").reshape(5, -1)
    expected = code.gains.numpy() * (transform - code.centre.numpy())
    np.testing.assert_allclose(code.encode(images), expected, atol=1e-12)
    np.testing.assert_allclose(torch.cat(list(code.encode_in_chunks(images))), expected, atol=1e-12)


@pytest.mark.parametrize("sides", [(12, 15), (11, 12, 13)])
def test_coefficients_become_the_image_again_within_its_range(sides: tuple[int, ...]) -> None:
    images = images_with(sides)
    torch.testing.assert_close(images_of(coefficients_of(images), (2, *sides)), images)
    outside = images_of(coefficients_of(3 * images - 1), (2, *sides))
    torch.testing.assert_close(outside, (3 * images - 1).clamp(0, 1), rtol=0, atol=1e-6)
    assert outside.dtype == torch.float32


def test_the_planted_model_computes_the_code_that_its_weights_say() -> None:
    code, images = some_code((2, 12, 15)), images_with((12, 15))
    spectrum = Spectrum(360)
    weights = code.to_weights()
    spectrum.load_state_dict({name.removeprefix("spectrum."): value for name, value in weights.items()})
    with torch.no_grad():
        torch.testing.assert_close(spectrum(images).double(), code.encode(images), rtol=1e-4, atol=1e-4)
    read = read_code({"in_channels": 2, "image_size": [12, 15]}, weights)
    assert read.image_shape == code.image_shape
    torch.testing.assert_close(read.gains, code.gains, rtol=1e-6, atol=0)
    torch.testing.assert_close(read.centre, code.centre, rtol=1e-6, atol=1e-7)


def test_a_layer_on_pixels_is_the_same_layer_on_the_code() -> None:
    code, images = some_code((2, 12, 15)), images_with((12, 15))
    rows = torch.randn(7, 2, 12, 15, generator=torch.Generator().manual_seed(1))
    weight, bias = code.layer_on_pixels(rows)
    on_pixels = torch.einsum("bchw,nchw->bn", images.double(), rows.double())
    torch.testing.assert_close(code.encode(images) @ weight.T + bias, on_pixels)


@pytest.mark.parametrize("whitening", [0.0, 0.125, 0.25])
@pytest.mark.parametrize("centred", [True, False])
def test_an_image_has_the_root_of_its_coefficients_for_its_energy(whitening: float, centred: bool) -> None:
    images = smooth_images(60)
    code = fit_code(images, whitening=whitening, centred=centred)
    assert float(code.encode(images).square().sum(dim=1).mean()) == pytest.approx(math.sqrt(28 * 28), rel=1e-6)


def test_with_this_energy_image_and_factor_together_are_measured_best() -> None:
    images = smooth_images(60)
    code = fit_code(images, whitening=0.0)
    seen = code.encode(images).square().sum(dim=1).mean()

    def error(louder: float) -> float:
        """Squared, of the image (u + noise / r) / gain and by an r that noise / r blurs, where |r| |(u, 1)| = 1."""
        factor = 1 / (louder**2 * seen + 1).sqrt()
        gain = float(code.gains[0]) * louder
        return float((784 + louder**2 * seen) / (factor * gain) ** 2)

    assert all(error(1.0) < error(louder) for louder in (0.5, 0.8, 0.95, 1.05, 1.25, 2.0))


def test_a_quarter_is_the_whitening_that_carries_images_best_at_a_given_energy() -> None:
    images = smooth_images(60)
    variance = coefficients_of(images).var(dim=0, correction=0).clamp(min=1e-6)
    errors = {}
    for power in (0.0, 0.125, 0.25, 0.375, 0.5):
        gains = fit_code(images, whitening=power).gains
        gains = gains / (gains.square() * variance).sum().sqrt()
        errors[power] = float((1 / gains.square()).sum())
    assert min(errors, key=errors.__getitem__) == 0.25


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_images_that_are_all_the_same_have_a_finite_code(level: float) -> None:
    code = fit_code(torch.full((9, 1, 12, 12), level), whitening=0.25)
    assert bool(code.gains.isfinite().all())
    assert float(code.gains.min()) > 0


def test_looking_at_a_few_images_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth_images(23)
    whole = fit_code(images, whitening=0.25)
    monkeypatch.setattr(code_module, "_CHUNK_ELEMENTS", 5 * 28 * 28)
    assert [len(chunk) for chunk in in_chunks(images)] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat(list(in_chunks(images))), images)
    parts = fit_code(images, whitening=0.25)
    torch.testing.assert_close(parts.gains, whole.gains)
    torch.testing.assert_close(parts.centre, whole.centre)
    # An image larger than the bound comes alone.
    monkeypatch.setattr(code_module, "_CHUNK_ELEMENTS", 7)
    assert [len(chunk) for chunk in in_chunks(images[:3])] == [1, 1, 1]


def test_encoding_leaves_the_images_and_the_code_as_they_were() -> None:
    images, code = images_with((12, 15)).double(), some_code((2, 12, 15))
    before = images.clone(), code.gains.clone(), code.centre.clone()
    code.encode(images)
    code.layer_on_pixels(images)
    assert all(torch.equal(a, b) for a, b in zip((images, code.gains, code.centre), before, strict=True))
