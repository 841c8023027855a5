from __future__ import annotations

import math
from itertools import product

import numpy
import pytest
import torch
from monai.metrics import SSIMMetric
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from hbdp_fed.audit.similarity import mse, ncc, pairwise_ssim, psnr

SHAPES = [(1, 28, 28), (3, 28, 28), (1, 11, 11), (2, 37, 54), (1, 28, 28, 28), (2, 11, 14, 31)]


def of_every_kind(shape: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
    """float32 images of ``shape`` in [0, 1], by what they look like."""
    generator = torch.Generator().manual_seed(seed)
    fine, other, coarse = (torch.rand(shape, generator=generator) for _ in range(3))
    coarse = coarse[tuple(slice(None, None, 4) if axis else slice(None) for axis in range(len(shape)))]
    mode = {2: "bilinear", 3: "trilinear"}[len(shape) - 1]
    smooth = torch.nn.functional.interpolate(coarse[None], size=shape[1:], mode=mode)[0]
    halves = torch.zeros(shape)
    halves[:, : shape[1] // 2] = 1
    return {
        "random": fine,
        "a little noisier": (0.8 * fine + 0.2 * other).clamp(0, 1),
        "smooth": smooth,
        "smooth with noise": (smooth + 0.1 * (other - 0.5)).clamp(0, 1),
        "dark": 0.02 + 0.001 * fine,
        "black": torch.zeros(shape),
        "nearly white": 1 - 0.001 * fine,
        "bright": 0.9 + 0.00001 * other,
        "bright and even": torch.full(shape, 0.7),
        "black and white": halves,
        "black and white with noise": (halves + 0.002 * (other - 0.5)).clamp(0, 1),
    }


def stack(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.stack(list(of_every_kind(shape, seed).values()))


def by_scikit_image(first: Tensor, second: Tensor) -> float:
    return float(
        structural_similarity(
            first.double().numpy(),
            second.double().numpy(),
            gaussian_weights=True,
            use_sample_covariance=False,
            sigma=1.5,
            data_range=1,
            channel_axis=0,
        )
    )


def by_definition(first: NDArray[numpy.float64], second: NDArray[numpy.float64]) -> float:
    """Wang et al. 2004, equations 14 to 16 and 13, window by window."""
    bell = numpy.exp(-((numpy.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = bell
    for _ in first.shape[2:]:
        weights = numpy.multiply.outer(weights, bell)
    weights = weights / weights.sum()
    scores = []
    for x, y in zip(first, second, strict=True):
        for corner in product(*(range(size - 10) for size in x.shape)):
            window = tuple(slice(start, start + 11) for start in corner)
            mean_x, mean_y = (weights * x[window]).sum(), (weights * y[window]).sum()
            variance_x = (weights * (x[window] - mean_x) ** 2).sum()
            variance_y = (weights * (y[window] - mean_y) ** 2).sum()
            covariance = (weights * (x[window] - mean_x) * (y[window] - mean_y)).sum()
            luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            scores.append(luminance * (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2))
    return float(numpy.mean(scores))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ssim_is_that_of_monai(shape) -> None:
    # MONAI subtracts squares in float32: where images are bright and even it is off itself, in volumes by up to 0.005.
    kinds = of_every_kind(shape)
    images = torch.stack([image for kind, image in kinds.items() if "bright" not in kind and "white" not in kind])
    metric = SSIMMetric(spatial_dims=len(shape) - 1, data_range=1.0, win_size=11, kernel_sigma=1.5, reduction="none")
    theirs = torch.stack([metric(image.expand_as(images), images)[:, 0] for image in images])
    torch.testing.assert_close(pairwise_ssim(images, images), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ssim_is_that_of_scikit_image_in_double_precision(shape) -> None:
    first, second = stack(shape, seed=1), stack(shape, seed=2)
    theirs = torch.tensor([[by_scikit_image(a, b) for b in second] for a in first])
    torch.testing.assert_close(pairwise_ssim(first, second), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 13, 16), (1, 12, 11, 13)], ids=str)
def test_ssim_is_that_of_the_definition(shape) -> None:
    images = stack(shape)
    theirs = torch.tensor([[by_definition(a.double().numpy(), b.double().numpy()) for b in images] for a in images])
    torch.testing.assert_close(pairwise_ssim(images, images), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_image_is_like_itself_and_never_more(shape) -> None:
    images = stack(shape)
    similarity = pairwise_ssim(images, images)
    assert similarity.dtype == torch.float32
    assert similarity.diagonal().tolist() == pytest.approx([1.0] * len(images), abs=1e-5)
    assert float(similarity.max()) <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 4, 11])
def test_ssim_is_symmetric(shape, count: int) -> None:
    first, second = stack(shape, seed=1)[:count], stack(shape, seed=2)
    torch.testing.assert_close(pairwise_ssim(first, second), pairwise_ssim(second, first).T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 28, 45), (1, 17, 28, 19)], ids=str)
@pytest.mark.parametrize(("tile", "elements"), [(7, 2_000), (18, 40_000), (100, 1_000)])
def test_tiles_and_blocks_change_nothing(shape, tile: int, elements: int, monkeypatch) -> None:
    first, second = stack(shape, seed=1)[:7], stack(shape, seed=2)
    whole = pairwise_ssim(first, second)
    monkeypatch.setattr("hbdp_fed.audit.similarity._TILE", tile)
    monkeypatch.setattr("hbdp_fed.audit.similarity._ELEMENTS", elements)
    torch.testing.assert_close(pairwise_ssim(first, second), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("m", "n"), [(11, 11), (1, 1), (0, 11), (11, 1)])
def test_threads_change_nothing_and_are_as_many_as_before(m: int, n: int) -> None:
    images = stack((1, 28, 28))
    alone = pairwise_ssim(images[:m], images[:n])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = pairwise_ssim(images[:m], images[:n])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(shared, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_ssim_takes_any_floats_and_any_strides(dtype: torch.dtype) -> None:
    images = stack((3, 28, 30)).to(dtype)
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(pairwise_ssim(strided, images), pairwise_ssim(images.float(), images.float()))


def test_ssim_lets_no_gradient_through_and_leaves_its_images_as_they_are() -> None:
    images = stack((1, 28, 28)).double()
    given = images.clone().requires_grad_()
    assert not pairwise_ssim(given, given).requires_grad
    assert torch.equal(given, images)


@pytest.mark.parametrize("size", [(28, 28), (12, 12, 12)], ids=str)
@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0)])
def test_none_compare_with_none(size, m: int, n: int) -> None:
    assert pairwise_ssim(torch.rand(m, 1, *size), torch.rand(n, 1, *size)).shape == (m, n)
    for of_pairs in (psnr, mse, ncc):
        assert of_pairs(torch.rand(0, 1, *size), torch.rand(0, 1, *size)).shape == (0,)


def test_images_that_do_not_compare_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 28, 28\) and \(3, 28, 28\) do not compare"):
        pairwise_ssim(torch.rand(2, 1, 28, 28), torch.rand(2, 3, 28, 28))
    with pytest.raises(ValueError, match=r"\(1, 28, 28\) and \(1, 28, 28, 28\) do not compare"):
        pairwise_ssim(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28, 28))
    for of_pairs in (psnr, mse, ncc):
        with pytest.raises(ValueError, match="are no pairs"):
            of_pairs(torch.rand(2, 1, 28, 28), torch.rand(1, 1, 28, 28))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10, 28), "at least 11 x 11, got 10 x 28"),
        ((28, 28, 7), "at least 11 x 11 x 11, got 28 x 28 x 7"),
        ((), "at least 11, got no spatial axis"),
    ],
    ids=str,
)
def test_images_that_hold_no_window_are_refused(size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairwise_ssim(torch.rand(2, 1, *size), torch.rand(2, 1, *size))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_psnr_is_that_of_scikit_image(shape) -> None:
    first, second = stack(shape, seed=1), stack(shape, seed=2)[[0, 1, 2, 3, 6, 5, 4, 7, 8, 0, 1]]
    unequal = [index for index in range(len(first)) if not torch.equal(first[index], second[index])]
    first, second = first[unequal], second[unequal]
    theirs = [
        peak_signal_noise_ratio(a.double().numpy(), b.double().numpy(), data_range=1)
        for a, b in zip(first, second, strict=True)
    ]
    assert psnr(first, second).tolist() == pytest.approx(theirs, abs=1e-4)


def test_psnr_of_equal_images_is_infinite() -> None:
    images = stack((1, 28, 28))
    assert psnr(images, images).tolist() == [math.inf] * len(images)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mse_is_that_of_numpy(shape) -> None:
    first, second = torch.cat([stack(shape, seed) for seed in (1, 2, 3)]), torch.cat([stack(shape)] * 3).flip(0)
    errors = mse(first, second)
    assert errors.dtype == torch.float64
    theirs = [numpy.mean((a.double().numpy() - b.double().numpy()) ** 2) for a, b in zip(first, second, strict=True)]
    assert errors.tolist() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ncc_is_that_of_numpy(shape) -> None:
    varying = [image for kind, image in of_every_kind(shape).items() if kind not in ("black", "bright and even")]
    first, second = torch.stack(varying), torch.stack(varying).roll(1, 0)
    correlation = ncc(first, second)
    assert correlation.dtype == torch.float64
    theirs = [
        numpy.corrcoef(a.double().numpy().ravel(), b.double().numpy().ravel())[0, 1]
        for a, b in zip(first, second, strict=True)
    ]
    assert correlation.tolist() == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ncc_that_is_not_centred_is_the_cosine(shape) -> None:
    bright = [image for kind, image in of_every_kind(shape).items() if kind != "black"]
    first, second = torch.stack(bright), torch.stack(bright).roll(1, 0)
    theirs = torch.nn.functional.cosine_similarity(first.double().flatten(1), second.double().flatten(1))
    torch.testing.assert_close(ncc(first, second, centred=False), theirs, rtol=0, atol=1e-12)


def test_ncc_of_an_image_with_its_brightened_self_is_one_and_with_its_negative_minus_one() -> None:
    images = stack((3, 28, 28))[:4].double()
    assert ncc(images, 0.5 * images + 0.2).tolist() == pytest.approx([1.0] * 4)
    assert ncc(images, 1 - images).tolist() == pytest.approx([-1.0] * 4)
    assert ncc(images, 3 * images, centred=False).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
def test_ncc_with_an_image_that_has_no_norm_is_nan(value: float) -> None:
    constant, image = torch.full((1, 3, 29, 31), value), stack((3, 29, 31))[:1]
    assert ncc(constant, image).isnan().all()
    assert ncc(image, constant).isnan().all()
    assert ncc(constant, constant).isnan().all()
    assert ncc(image, constant, centred=False).isnan().all() == (value == 0)
