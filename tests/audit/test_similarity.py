from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.audit import pairwise_ssim, psnr


@pytest.fixture(params=[(1, 28), (3, 28), (1, 11), (1, 37)], ids=str)
def pair(request, images):
    channels, size = request.param
    first = images(5, channels=channels, size=size, seed=1)
    noise = 0.1 * torch.randn(first.shape, generator=torch.Generator().manual_seed(2))
    second = torch.cat([(first + noise).clamp(0, 1)[:3], images(4, channels=channels, size=size, seed=3)])
    return first, second


def test_ssim_is_that_of_torchmetrics_without_its_padded_border(pair) -> None:
    first, second = pair
    mine = pairwise_ssim(first, second)
    for row, image in enumerate(first):
        _, full = structural_similarity_index_measure(
            image.expand_as(second), second, data_range=1.0, sigma=1.5, reduction="none", return_full_image=True
        )
        theirs = full[:, :, 5:-5, 5:-5].flatten(start_dim=1).mean(dim=1)
        torch.testing.assert_close(mine[row], theirs, rtol=0, atol=1e-4)


def test_ssim_is_that_of_scikit_image(pair) -> None:
    first, second = pair
    mine = pairwise_ssim(first, second)
    for row in range(len(first)):
        for column in range(len(second)):
            theirs = structural_similarity(
                first[row].double().numpy(),
                second[column].double().numpy(),
                gaussian_weights=True,
                use_sample_covariance=False,
                sigma=1.5,
                data_range=1,
                channel_axis=0,
            )
            assert float(mine[row, column]) == pytest.approx(theirs, abs=1e-4)


def test_an_image_is_like_itself_and_never_more(images) -> None:
    similarity = pairwise_ssim(images(20), images(20))
    assert similarity.diagonal().tolist() == pytest.approx([1.0] * 20, abs=1e-5)
    assert float(similarity.max()) <= 1


def test_chunks_change_nothing(images, monkeypatch) -> None:
    whole = pairwise_ssim(images(4, seed=1), images(30, seed=2))
    monkeypatch.setattr("hbdp_fed.audit.similarity._CHUNK_ELEMENTS", 7 * 28 * 28)
    torch.testing.assert_close(pairwise_ssim(images(4, seed=1), images(30, seed=2)), whole)


@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0)])
def test_none_compare_with_none(images, m: int, n: int) -> None:
    assert pairwise_ssim(images(3)[:m], images(3)[:n]).shape == (m, n)


def test_images_that_do_not_compare_are_refused(images) -> None:
    with pytest.raises(ValueError, match="do not compare"):
        pairwise_ssim(images(2, channels=1), images(2, channels=3))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        pairwise_ssim(images(2, size=10), images(2, size=10))


def test_psnr_is_that_of_scikit_image(images) -> None:
    first, second = images(4, seed=1), images(4, seed=2)
    theirs = [
        peak_signal_noise_ratio(a.double().numpy(), b.double().numpy(), data_range=1)
        for a, b in zip(first, second, strict=True)
    ]
    assert psnr(first, second).tolist() == pytest.approx(theirs, abs=1e-4)


def test_psnr_of_equal_images_is_infinite(images) -> None:
    assert psnr(images(2), images(2)).tolist() == [math.inf, math.inf]
