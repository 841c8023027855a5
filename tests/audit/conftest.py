from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def smooth_images(count: int, *, channels: int = 1, size: int = 28, seed: int = 0) -> Tensor:
    """float32 (count, channels, size, size) in [0, 1]: blobs with some fine texture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, 4, 4, generator=generator)
    fine = 0.3 * torch.randn(count, channels, 14, 14, generator=generator)
    parts = [functional.interpolate(part, size=(size, size), mode="bilinear") for part in (coarse, fine)]
    return torch.sigmoid(parts[0] + parts[1])


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    return smooth_images
