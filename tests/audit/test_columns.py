from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbdp_fed.audit import audit_probe, best_columns
from hbdp_fed.audit.columns import Column, best_first, load_columns, save_columns
from hbdp_fed.errors import DataFileError
from hbdp_fed.types import Reconstruction


def probe(originals, rebuilt, public, hospital="hospital-0"):
    reconstruction = Reconstruction(images=rebuilt, scores=torch.ones(len(rebuilt)))
    return audit_probe(reconstruction, originals, public, hospital=hospital, round=1), reconstruction, originals


def column(shape: tuple[int, ...] = (1, 12, 12), *, ssim: float = 0.5, success: bool = False, seed: int = 0) -> Column:
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(seed))
    return Column(*images, ssim=ssim, success=success, hospital="Klinikum Süd")


def test_the_best_come_first_each_with_its_original_and_hospital(images) -> None:
    public, first, second = images(9, seed=2), images(3, seed=1), images(3, seed=3)
    columns = best_columns(
        [probe(first, images(3, seed=4), public, "Aachen"), probe(second, second, public, "Bonn")], public, count=4
    )
    assert [column.hospital for column in columns] == ["Bonn"] * 3 + ["Aachen"]
    assert [column.success for column in columns] == [True] * 3 + [False]
    assert all(torch.equal(column.original, column.reconstruction) for column in columns[:3])


def test_a_success_comes_before_a_better_ssim() -> None:
    columns = [column(ssim=0.9), column(ssim=0.81, success=True), column(ssim=0.85, success=True)]
    assert [column.ssim for column in best_first(columns)] == [0.85, 0.81, 0.9]


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 14), (1, 6, 7, 8)])
def test_columns_come_back_from_their_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    columns = [column(shape, ssim=0.1 * seed, success=seed > 1, seed=seed) for seed in range(3)]
    save_columns(tmp_path / "deep" / "columns.npz", columns)
    again = load_columns(tmp_path / "deep" / "columns.npz")
    assert len(again) == 3
    for before, after in zip(columns, again, strict=True):
        for field in fields(Column):
            ours, theirs = getattr(before, field.name), getattr(after, field.name)
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["columns.npz"]


def test_no_column_is_a_file_too_and_the_same_columns_are_the_same_bytes(tmp_path: Path) -> None:
    save_columns(tmp_path / "none.npz", [])
    assert load_columns(tmp_path / "none.npz") == []
    for name in ("a", "b"):
        save_columns(tmp_path / name, [column()])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_columns_of_two_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images of one shape"):
        save_columns(tmp_path / "columns.npz", [column(), column((1, 14, 14))])
    with pytest.raises(ValueError, match="images of one shape"):
        save_columns(tmp_path / "columns.npz", [replace(column(), nearest=torch.zeros(3, 12, 12))])
    assert list(tmp_path.iterdir()) == []


def arrays(**changed: np.ndarray) -> dict[str, np.ndarray]:
    image = np.zeros((2, 1, 12, 12), dtype=np.float32)
    good = {
        "original": image, "reconstruction": image, "nearest": image, "ssim": np.zeros(2),
        "success": np.zeros(2, dtype=bool), "hospital": np.array(["a", "b"]),
    }  # fmt: skip
    return {**good, **changed}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"ssim": np.zeros(3)}, "ssim"),
        ({"ssim": np.array(0.5)}, "ssim"),
        ({"success": np.zeros(2)}, "success"),
        ({"hospital": np.zeros(2)}, "hospital"),
        ({"nearest": np.zeros((2, 3, 12, 12), dtype=np.float32)}, "nearest"),
        ({"original": np.zeros((2, 1, 12, 12), dtype=np.uint8)}, "original"),
        (dict.fromkeys(("original", "reconstruction", "nearest"), np.zeros((2, 12, 12), dtype=np.float32)), "original"),
        ({"hospital": np.array([object(), object()])}, "allow_pickle"),
    ],
)
def test_arrays_that_are_no_columns_are_refused(tmp_path: Path, changed: dict[str, np.ndarray], problem: str) -> None:
    path = tmp_path / "columns.npz"
    np.savez(path, **arrays())
    assert len(load_columns(path)) == 2
    np.savez(path, **arrays(**changed))
    with pytest.raises(DataFileError, match=problem):
        load_columns(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "columns.npz"
    with pytest.raises(DataFileError, match="no such file"):
        load_columns(path)
    save_columns(path, [column()])
    whole = path.read_bytes()
    for content in (b"", b"words", whole[: len(whole) // 2], whole[:150] + bytes(200) + whole[350:]):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match="no file of columns"):
            load_columns(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataFileError, match="single array"):
        load_columns(path)
    with path.open("wb") as file:
        np.savez(file, original=np.zeros(3))
    with pytest.raises(DataFileError, match="reconstruction"):
        load_columns(path)
