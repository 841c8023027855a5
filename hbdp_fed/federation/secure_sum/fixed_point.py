"""Numbers modulo 2^k: what a sum of masked updates is computed in."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT_BITS = 54


@dataclass(frozen=True)
class FixedPoint:
    """A grid of numbers, written as integers modulo 2^bits, that sums of so many summands cannot leave.

    The step is the smallest power of two with which they cannot, so that scaling is exact and rounding to the nearest
    multiple is the only error: at most step / 2 in a summand, H * step / 2 in a sum of H, and nothing in the decoded
    sum, which is a float64 exactly.

    Rounding comes after the noise and depends on nothing else, so it takes away no protection that the noise gives. But
    as with float32, noise that is small beside the step is no longer Gaussian: below a ratio of about 10
    (:meth:`noise_to_step`) too few values are left for anything that computes with densities, and below 1 most of it is
    rounded off, and what arrives is the noiseless update on the grid. With 54 bits the step is bound * H * 2^-53, or up
    to twice that: a wide bound costs little as long as the ratio stays large.

    Attributes:
        bound: The largest absolute value of a coordinate of a summand: of a weighted update, noise included. Announced
            beforehand, for it must not depend on the records. Nothing is clipped to it: a larger value is refused, and
            as the refusal tells something about the records, the bound should be so wide that it never happens.
        summands: H, the most that are ever added up.
        bits: k, from 2 to 54, so that each sum has at most 53 bits and a sign.

    Raises:
        ValueError: if one of them is out of range, or there are too few bits for that many summands.
    """

    bound: float
    summands: int
    bits: int = _EXACT_BITS

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= _EXACT_BITS:
            raise ValueError(f"bits must be from 2 to {_EXACT_BITS}, got {self.bits}")
        if self.summands < 1:
            raise ValueError(f"summands must be at least 1, got {self.summands}")
        if self.largest < 1:
            raise ValueError(f"{self.bits} bits cannot hold the sum of {self.summands} numbers; use more bits")
        if not (self.bound > 0 and math.isfinite(2 * self.bound * self.summands)):
            raise ValueError(f"bound must be positive and its sums finite, got {self.bound}")
        if self.step < sys.float_info.min:
            raise ValueError(f"bound is too small to be divided into steps: {self.bound}")

    @property
    def largest(self) -> int:
        """The largest absolute value of an encoded coordinate, before the modulus."""
        return ((1 << (self.bits - 1)) - 1) // self.summands

    @property
    def step(self) -> float:
        """The distance of neighbouring numbers on the grid, a power of two."""
        below = math.ldexp(0.5, math.frexp(self.bound / self.largest)[1])
        return below if below * self.largest >= self.bound else 2 * below

    @property
    def modulus(self) -> int:
        """2^bits: encoded numbers and their sums are taken modulo this."""
        return 1 << self.bits

    def max_error(self, summands: int) -> float:
        """The largest error of a coordinate of a decoded sum, given how many were added up."""
        return summands * self.step / 2

    def noise_to_step(self, noise_std: float) -> float:
        """The ratio of a summand's noise to the step.

        Args:
            noise_std: The noise's standard deviation in a coordinate of the weighted update, at least 0.
        """
        if noise_std < 0 or not math.isfinite(noise_std):
            raise ValueError(f"noise_std must be finite and not negative, got {noise_std}")
        return noise_std / self.step

    def encode(self, values: Tensor) -> Tensor:
        """The nearest numbers of the grid, int64 in [0, 2^bits), of the shape of ``values``.

        Raises:
            OverflowError: if a value is larger than the bound or not finite: wrapped around, it would be another one.
        """
        values = values.detach().cpu().double()
        # Written so that NaN is refused, too.
        if not bool((values.abs() <= self.bound).all()):
            raise OverflowError(f"a value of size {float(values.abs().max()):g} exceeds the bound of {self.bound:g}")
        return torch.round(values / self.step).to(torch.int64) & (self.modulus - 1)

    def decode(self, words: Tensor) -> Tensor:
        """What a sum of encoded values stands for, float64.

        Args:
            words: int64 in [0, 2^bits). The upper half stands for negative numbers.
        """
        return torch.where(words >= self.modulus // 2, words - self.modulus, words).double() * self.step
