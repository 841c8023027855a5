"""From one grid to another, against SciPy's own resampling. What loaders make of volumes is tested with them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from hbdp_fed.data.volumes import on_file_grid

RNG = np.random.default_rng(0)


def random_grid(seed: int) -> np.ndarray:
    """Axes of any direction and size, around a centre that all grids nearly share."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    grid = np.eye(4)
    grid[:3, :3] = turned @ np.diag(rng.uniform(0.5, 2.0, 3))
    grid[:3, 3] = rng.uniform(-1, 1, 3) - grid[:3, :3] @ np.array([6.0, 5.0, 6.0])
    return grid


@pytest.mark.parametrize("seed", range(4))
def test_each_voxel_takes_the_class_of_the_nearest_one(seed: int) -> None:
    mask = RNG.integers(0, 4, (12, 9, 10)).astype(np.uint8)
    affine, like = random_grid(seed), random_grid(100 + seed)
    found = on_file_grid(mask, affine, like=like, shape=(14, 11, 13))
    way = np.linalg.inv(affine) @ like
    # Two voxels more on each side: SciPy has no nearest voxel beyond the last one's centre.
    padded = np.pad(mask, 2)
    expected = affine_transform(
        padded, way[:3, :3], offset=way[:3, 3] + 2, output_shape=(14, 11, 13), order=0, mode="constant"
    )
    assert np.array_equal(found, expected)
    assert found.any()


def test_the_same_grid_changes_nothing() -> None:
    mask, grid = RNG.integers(0, 4, (5, 6, 7)).astype(np.uint8), random_grid(7)
    assert np.array_equal(on_file_grid(mask, grid, like=grid, shape=mask.shape), mask)
