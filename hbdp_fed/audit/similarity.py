"""How alike images are: SSIM of every reconstruction with every original; PSNR, squared error, correlation of pairs.

Libraries compare pair by pair and filter each image anew for every pair. An audit compares all with all, and of the
terms of SSIM only the local covariance belongs to a pair. It is built up axis by axis, by the law of total covariance:
within a window it is the average over the window's rows of the covariance within the row, plus the covariance of the
rows' averages. Averaging is a product with a small matrix, and the covariance of averages is, at each position, an
(M, 11) @ (11, N) product over views of the images: no window of 11 x 11 is ever gathered, a third axis costs one step
more, and as deviations are multiplied, not squares subtracted, float32 is exact to about 1e-6 even where images are
nearly constant. The work goes through the image in tiles and through the pairs in blocks that stay in the cache.

Matching and scoring 1,000 images with 1,000 others at 64 x 64 takes 7.3 s on two cores (``pairwise_ssim``, ``match``,
``psnr``, ``mse`` and ``ncc`` of ``torch.rand(1000, 1, 64, 64)``, after ``torch.set_num_threads(2)``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

WINDOW = 11
"""Pixels across the Gaussian window, along every axis; an image has to be at least as large."""

_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_TILE = 18
"""Windows along a tile's side. Larger tiles filter by matrices that are mostly zeros, smaller ones repeat borders."""
_ELEMENTS = 2**20
"""Covariances that are held at once: 4 MB for each intermediate. Fewer spend the time on calls, more on memory."""
_PAIRS = 16
"""Pairs that are measured at once where pairs stand alone."""


@dataclass(frozen=True)
class _Moments:
    """N images' tile with its Gaussian-weighted local moments; the images are the last axis, so that products batch.

    Attributes:
        averages: For k = 0, 1, ..., number of spatial axes: the pixels averaged along the last k axes, less the
            image's mean over the tile, (*spatial, N) with 10 fewer positions along each of these k axes.
        mean: The pixels averaged along all axes, (*windows, N).
        variance: The same shape, with the weights' own normalisation (no sample correction).
    """

    averages: tuple[Tensor, ...]
    mean: Tensor
    variance: Tensor

    def columns(self, start: int, count: int) -> _Moments:
        """Of the windows ``start`` to ``start + count - 1`` along the last spatial axis."""
        pixels, *averages = self.averages
        return _Moments(
            averages=(
                pixels.narrow(-2, start, count + WINDOW - 1),
                *(average.narrow(-2, start, count) for average in averages),
            ),
            mean=self.mean.narrow(-2, start, count),
            variance=self.variance.narrow(-2, start, count),
        )


def pairwise_ssim(reconstructions: Tensor, originals: Tensor) -> Tensor:
    """The structural similarity of every reconstruction with every original.

    Wang et al., IEEE TIP 13, 600-612 (2004), equation 13: a Gaussian window of 11 pixels along each axis and standard
    deviation 1.5, K1 = 0.01, K2 = 0.03, data range 1, averaged over channels and positions. Only windows that lie
    wholly inside the image count, as in the authors' code and in MONAI. scikit-image with ``gaussian_weights=True`` and
    ``use_sample_covariance=False`` cuts the same border off; torchmetrics pads the image by reflection and counts the
    border too, which moves the mean by a few hundredths on images of 28 x 28.

    ``torch.get_num_threads()`` threads share the work. No gradient flows.

    Args:
        reconstructions: float (M, C, *spatial) in [0, 1]: images (H, W), volumes (D, H, W); M may be 0.
        originals: float (N, C, *spatial) in [0, 1]; N may be 0.

    Returns:
        float32 (M, N) in [-1, 1].

    Raises:
        ValueError: if shapes differ, there is no spatial axis, or images are smaller than the window.
    """
    shape = originals.shape[1:]
    if reconstructions.shape[1:] != shape:
        raise ValueError(f"images of {tuple(reconstructions.shape[1:])} and {tuple(shape)} do not compare")
    if min(shape[1:], default=0) < WINDOW:
        smallest, size = (" x ".join(map(str, sizes)) for sizes in ([WINDOW] * len(shape[1:]), shape[1:]))
        raise ValueError(f"SSIM needs images of at least {smallest or WINDOW}, got {size or 'no spatial axis'}")
    if len(reconstructions) > len(originals):
        # The measure is symmetric, and the longer side is the one to share among threads.
        return pairwise_ssim(originals, reconstructions).T.contiguous()
    total = _by_threads(partial(_sums, reconstructions.detach()), originals.detach())
    windows = math.prod(size - WINDOW + 1 for size in shape[1:])
    # Rounding can carry equal images a hair beyond 1.
    return (total / (shape[0] * windows)).clamp(-1.0, 1.0).float()


def psnr(reconstructions: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pairs in dB at data range 1, float32 (N,); ``inf`` for images that are equal.

    Args:
        reconstructions: float (N, C, *spatial).
        originals: float (N, C, *spatial).

    Raises:
        ValueError: if shapes differ.
    """
    return (-10 * torch.log10(mse(reconstructions, originals))).float()


def mse(reconstructions: Tensor, originals: Tensor) -> Tensor:
    """Mean squared error of pairs over all pixels and channels, float64 (N,).

    Args:
        reconstructions: float (N, C, *spatial).
        originals: float (N, C, *spatial).

    Raises:
        ValueError: if shapes differ.
    """
    return _of_pairs(lambda first, second: (first - second).square().mean(dim=1), reconstructions, originals)


def ncc(reconstructions: Tensor, originals: Tensor, *, centred: bool = True) -> Tensor:
    """Normalised cross-correlation of pairs over all pixels and channels, float64 (N,) in [-1, 1].

    Args:
        reconstructions: float (N, C, *spatial).
        originals: float (N, C, *spatial).
        centred: Pearson's correlation, of the images less their means; otherwise the cosine <x, y> / (|x| |y|).

    Returns:
        NaN where one of the two has no norm: is constant, or without ``centred`` zero.

    Raises:
        ValueError: if shapes differ.
    """
    return _of_pairs(partial(_correlation, centred=centred), reconstructions, originals)


def _of_pairs(measure: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """``measure`` of float64 (n, pixels) and (n, pixels), a few pairs at a time."""
    if first.shape != second.shape:
        raise ValueError(f"images of {tuple(first.shape)} and {tuple(second.shape)} are no pairs")
    parts = zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
    return torch.cat([measure(a.double().flatten(start_dim=1), b.double().flatten(start_dim=1)) for a, b in parts])


def _correlation(first: Tensor, second: Tensor, *, centred: bool) -> Tensor:
    if centred:
        first, second = _centred(first), _centred(second)
    norms = (first.square().sum(dim=1) * second.square().sum(dim=1)).sqrt()
    return ((first * second).sum(dim=1) / norms).clamp(-1.0, 1.0)


def _centred(values: Tensor) -> Tensor:
    # The first pixel goes before the mean does, for a constant image to come out as zeros and not as rounding errors.
    values = values - values[:, :1]
    return values - values.mean(dim=1, keepdim=True)


def _by_threads(work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """``work`` on images, whose results (M, n) are joined; every thread of torch's takes a share of the images."""
    threads = torch.get_num_threads()
    if threads == 1:
        return work(images)
    shares = images.chunk(threads)
    # Every thread runs whole operators. Were each operator spread over the threads instead, they would wait for each
    # other many thousand times, which costs little on an idle machine and many times the work itself on a busy one.
    try:
        with ThreadPoolExecutor(len(shares), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(work, shares)), dim=1)
    finally:
        torch.set_num_threads(threads)


def _sums(reconstructions: Tensor, originals: Tensor) -> Tensor:
    """The sum over channels and windows of every pair's SSIM, float64 (M, N)."""
    total = torch.zeros(len(reconstructions), len(originals), dtype=torch.float64)
    for channel in range(originals.shape[1]):
        for tile in product(*(_tiles(size) for size in originals.shape[2:])):
            part = (slice(None), *tile)
            _add_tile(total, reconstructions[:, channel][part], originals[:, channel][part])
    return total


def _tiles(size: int) -> Iterator[slice]:
    """Parts of an axis of ``size`` pixels, overlapping so that every window lies in just one of them."""
    windows = size - WINDOW + 1
    count = math.ceil(windows / _TILE)
    for part in range(count):
        yield slice(part * windows // count, (part + 1) * windows // count + WINDOW - 1)


def _add_tile(total: Tensor, reconstructions: Tensor, originals: Tensor) -> None:
    """Add the sums over the windows of a tile to ``total``; the tiles are (M, *spatial) and (N, *spatial)."""
    *rows, width = originals.shape[1:]
    pairs = max(1, _ELEMENTS // math.prod(rows))
    # Deviations are taken of the left side only, so the right side is the longer one.
    most = max(1, 2 * _ELEMENTS // math.prod(originals.shape[1:]))
    right_size = max(1, min(len(originals), most, 2 * math.isqrt(pairs)))
    left_size = max(1, min(len(reconstructions), most, pairs // right_size))
    step = max(1, pairs // (left_size * right_size))
    for right_start in range(0, len(originals), right_size):
        right = _moments(originals[right_start : right_start + right_size])
        for left_start in range(0, len(reconstructions), left_size):
            left = _moments(reconstructions[left_start : left_start + left_size])
            block = total[left_start : left_start + left_size, right_start : right_start + right_size]
            for start in range(0, width - WINDOW + 1, step):
                count = min(step, width - WINDOW + 1 - start)
                block += _sum_over_windows(left.columns(start, count), right.columns(start, count))


def _sum_over_windows(left: _Moments, right: _Moments) -> Tensor:
    """float32 (m, n)."""
    mean, other_mean = left.mean.unsqueeze(-1), right.mean.unsqueeze(-2)
    variance, other_variance = left.variance.unsqueeze(-1), right.variance.unsqueeze(-2)
    # In place, for at this size it is memory that takes the time.
    score = _twice_covariance(left, right).add_(_C2)
    factor = torch.mul(2 * mean, other_mean).add_(_C1)
    score.mul_(factor)
    score.div_(torch.add(mean.square(), other_mean.square() + _C1, out=factor))
    score.div_(torch.add(variance, other_variance + _C2, out=factor))
    return score.flatten(end_dim=-3).sum(dim=0)


def _twice_covariance(left: _Moments, right: _Moments) -> Tensor:
    """float32 (*windows, m, n), by the law of total covariance along one axis after the other, the last axis first."""
    last = left.mean.ndim - 2
    covariance = torch.bmm(*_factors(left, right, last, 0))
    for done, axis in enumerate(reversed(range(last)), start=1):
        covariance = covariance.view(*left.averages[done].shape[:-1], *covariance.shape[1:])
        covariance = _smooth(covariance, axis).flatten(end_dim=-3)
        covariance.baddbmm_(*_factors(left, right, axis, done))
    return covariance.view(*left.mean.shape[:-1], *covariance.shape[1:])


def _factors(left: _Moments, right: _Moments, axis: int, done: int) -> tuple[Tensor, Tensor]:
    """(positions, m, 11) and (positions, 11, n): twice the covariance of averages along ``axis`` is their product.

    The weighted deviations of one side sum to zero, so the other side's means need not be taken off.
    """
    average = left.averages[done + 1].unsqueeze(-1)
    deviations = (left.averages[done].unfold(axis, WINDOW, 1) - average) * (2 * _weights().float())
    others = right.averages[done].unfold(axis, WINDOW, 1).transpose(-1, -2)
    return deviations.flatten(end_dim=-3), others.flatten(end_dim=-3)


def _moments(images: Tensor) -> _Moments:
    """The moments of (N, *spatial)."""
    pixels = images.movedim(0, -1).double().contiguous()
    # float32 has most digits near zero, and no covariance changes by a constant.
    centre = pixels.flatten(end_dim=-2).mean(dim=0)
    averages = [pixels - centre]
    squares = averages[0].square()
    for axis in reversed(range(images.ndim - 1)):
        averages.append(_smooth(averages[-1], axis))
        squares = _smooth(squares, axis)
    return _Moments(
        averages=tuple(average.float() for average in averages),
        mean=(averages[-1] + centre).float(),
        variance=(squares - averages[-1].square()).clamp(min=0.0).float(),
    )


def _smooth(values: Tensor, axis: int) -> Tensor:
    """Gaussian averages along one axis, at every window inside it: 10 positions fewer."""
    size = values.shape[axis]
    rows = values.reshape(math.prod(values.shape[:axis]), size, -1)
    # A small matrix product; a convolution call costs several times that.
    smooth = _filter_matrix(size).to(values.dtype) @ rows
    return smooth.view(*values.shape[:axis], size - WINDOW + 1, *values.shape[axis + 1 :])


def _filter_matrix(size: int) -> Tensor:
    """The one-dimensional filter as a matrix, float64 (size - 10, size): row i averages around pixel i + 5."""
    return torch.eye(size, dtype=torch.float64).unfold(0, WINDOW, 1) @ _weights()


def _weights() -> Tensor:
    """float64 (11,), of sum 1."""
    offset = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2))
    return weights / weights.sum()
