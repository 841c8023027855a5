"""What a site's scanner does to its images: the same anatomy looks different at another hospital."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.data.blur import gaussian_blur
from hbdp_fed.data.checks import check_number


@dataclass(frozen=True)
class Scanner:
    """A site's appearance. The defaults change nothing.

    Attributes:
        blur: Standard deviation of the point spread in pixels, not negative.
        gamma: The exponent of the brightness curve, positive; below 1 is brighter.
        gain: Contrast around mid-grey, positive.
        offset: Brightness added to every pixel, in grey scales.
        noise: Standard deviation of the grain in grey scales, not negative.
    """

    blur: float = 0.0
    gamma: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.blur, self.gamma, self.gain, self.offset, self.noise)):
            raise ValueError(f"a scanner's figures must be finite: {self}")
        if self.blur < 0 or self.noise < 0 or self.gamma <= 0 or self.gain <= 0:
            raise ValueError(f"blur and noise must not be negative, gamma and gain must be positive: {self}")


def draw_scanner(strength: float, generator: torch.Generator) -> Scanner:
    """Draw a site's scanner.

    Every deviation from the identity is proportional to ``strength`` (that of gamma and gain in their logarithm), so
    raising it moves a site along its own direction.

    Args:
        strength: 0 for the identity, 1 for sites that differ strongly.
        generator: A CPU generator.

    Raises:
        SettingError: if ``strength`` is outside [0, 1].
    """
    strength = check_number("data.scanner_shift", strength, low=0.0, high=1.0)
    blur, gamma, gain, offset, noise = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    return Scanner(
        blur=strength * blur,
        gamma=math.exp(strength * 0.5 * (2 * gamma - 1)),
        gain=math.exp(strength * 0.4 * (2 * gain - 1)),
        offset=strength * 0.15 * (2 * offset - 1),
        noise=strength * 0.06 * noise,
    )


def apply_scanner(images: Tensor, scanner: Scanner, generator: torch.Generator) -> Tensor:
    """Render images as ``scanner`` would: blur, brightness curve, contrast and offset, grain, in this order.

    Each image is treated by itself, so the result for one does not depend on which others are in the batch, the grain
    aside.

    Args:
        images: float32 (N, C, H, W) in [0, 1].
        scanner: The site's scanner; the identity returns ``images`` itself.
        generator: A CPU generator for the grain.

    Returns:
        float32 (N, C, H, W), clipped to [0, 1].
    """
    if scanner == Scanner():
        return images
    rendered = gaussian_blur(images, scanner.blur).clamp(0, 1) ** scanner.gamma
    rendered = scanner.gain * (rendered - 0.5) + 0.5 + scanner.offset
    grain = torch.randn(images.shape, generator=generator)
    return (rendered + scanner.noise * grain).clamp(0, 1)
