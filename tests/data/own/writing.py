"""Small sets of records with their manifests."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from tests.data.dicom.writing import write_dicom, write_series

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_manifest(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def changed(folder: Path, **cells: str) -> None:
    """Other cells in the row of the fourth record."""
    path = folder / "manifest.csv"
    rows = read_manifest(path)
    rows[3].update(cells)
    write_manifest(path, rows)


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def write_volumes(root: Path, count: int = 10) -> Path:
    """Volumes with a brighter block, which is their mask: two a patient, from two hospitals."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        mask = np.zeros((18, 16, 17), dtype=np.uint8)
        x, y, z = rng.integers(2, 8, 3)
        mask[x : x + 6, y : y + 6, z : z + 6] = 1
        image = (400.0 * mask + rng.normal(0, 50, mask.shape)).astype(np.float32)
        write_volume(root / f"own/images/{number:02d}.nii.gz", image)
        write_volume(root / f"own/masks/{number:02d}.nii.gz", mask)
        rows.append(
            {
                "path": f"images/{number:02d}.nii.gz", "mask": f"masks/{number:02d}.nii.gz", "id": f"v{number}",
                "patient": f"p{number // 2}", "hospital": ("north", "south")[number // 2 % 2],
            }
        )  # fmt: skip
    return write_manifest(root / "own/manifest.csv", rows)


def write_pictures(root: Path, count: int = 40, *, classes: Sequence[str] = ("no", "yes")) -> Path:
    """Grey noise with a class each: two pictures a patient, from two hospitals."""
    rng = np.random.default_rng(1)
    (root / "own").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"{number:02d}.png"
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(root / "own" / name)
        patient = number // 2
        rows.append(
            {
                "path": name, "label": classes[patient // 2 % len(classes)], "patient": f"p{patient}",
                "hospital": ("north", "south")[patient % 2], "sex": ("f", "m")[number % 2],
            }
        )  # fmt: skip
    return write_manifest(root / "own/manifest.csv", rows)


def write_scans(root: Path, count: int = 10) -> Path:
    """DICOM series of ten slices with a brighter block, outlined by a PNG a slice."""
    rng = np.random.default_rng(2)
    rows = []
    for number in range(count):
        mask = np.zeros((10, 16, 18), dtype=np.uint8)
        z, y, x = rng.integers(1, 4, 3)
        mask[z : z + 4, y : y + 6, x : x + 6] = 255
        folder = root / f"own/{number:02d}"
        write_series(folder / "ct", (mask + rng.integers(0, 50, mask.shape)).astype(np.int16))
        (folder / "outline").mkdir()
        # The files of a series run from the top down.
        for place, outline in enumerate(mask[::-1]):
            Image.fromarray(outline).save(folder / f"outline/o{place}.png")
        rows.append({"path": f"{number:02d}/ct", "mask": f"{number:02d}/outline"})
    return write_manifest(root / "own/manifest.csv", rows)


def write_radiographs(root: Path, count: int = 20) -> Path:
    """DICOM files of 12 bits with a class each."""
    rng = np.random.default_rng(3)
    (root / "own").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"{number:02d}.dcm"
        write_dicom(root / "own" / name, rng.integers(0, 4096, (20, 24)).astype(np.uint16), stored=12)
        rows.append({"path": name, "label": ("no", "yes")[number % 2]})
    return write_manifest(root / "own/manifest.csv", rows)
