"""Data sets by name: what a user can get wrong, and that importing the package stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.data.registry import DATASETS, load_dataset
from hbdp_fed.errors import DataFileError, SettingError
from tests.data.own.writing import write_pictures

SMALL = {"num_train": 6, "num_val": 2, "num_test": 4}


def test_loads_the_phantom_with_its_options_and_without_a_folder() -> None:
    dataset = load_dataset("phantom", options={**SMALL, "seed": 3})
    assert torch.equal(dataset.train.images, load_phantom(num_train=6, num_val=2, num_test=4, seed=3).train.images)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        SettingError, match=r"^data: 'fantom' is not known; .*: breastmnist, chest_xray, dicom, ham10000, imagef"
    ) as caught:
        load_dataset("fantom")
    assert str(caught.value).endswith(
        "ham10000, imagefolder, medmnist, msd, nifti, phantom, pneumoniamnist, radimagenet"
    )


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"^data\.num_trian: .*seed, num_train, num_val") as caught:
        load_dataset("phantom", options={"num_trian": 5})
    assert caught.value.key == "data.num_trian"


@pytest.mark.parametrize("option", ["root", "name", "seed"])
def test_a_set_of_files_takes_its_own_options_alone(option: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=rf"^data\.{option}: .* it has: size, on_bad_record$"):
        load_dataset("pneumoniamnist", root=tmp_path, options={option: 1})


def test_a_set_of_files_without_a_folder_says_which_variable_to_set() -> None:
    with pytest.raises(SettingError, match="HBDP_DATA") as caught:
        load_dataset("breastmnist")
    assert caught.value.key == "data"


def test_absolute_paths_need_no_folder(tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path)
    options = {"manifest": str(manifest), "val_fraction": 0.2, "image_size": 16}
    whole = load_dataset("imagefolder", root=tmp_path / "elsewhere", options=options)
    assert torch.equal(load_dataset("imagefolder", options=options).train.images, whole.train.images)
    load_dataset("imagefolder", options={**options, "folder": str(manifest.parent)})
    for relative in ({"manifest": "manifest.csv"}, {"folder": "own"}):
        with pytest.raises(SettingError, match=r"set HBDP_DATA .*, or give data\.manifest as an absolute path"):
            load_dataset("imagefolder", options={**options, **relative})


LISTED = ("manifest", "folder", "class_names")
DIVISION = ("val_fraction", "test_fraction", "split_seed", "on_bad_record")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phantom", ("seed", "num_train", "num_val", "num_test", "image_size", "prevalence")),
        ("pneumoniamnist", ("size", "on_bad_record")),
        ("breastmnist", ("size", "on_bad_record")),
        ("ham10000", ("task", "image_size", *DIVISION)),
        ("msd", ("task", "image_size", "fit", "spacing", "window", *DIVISION)),
        ("imagefolder", (*LISTED, "image_size", "mode", *DIVISION)),
        ("nifti", (*LISTED, "image_size", "fit", "spacing", "window", *DIVISION)),
        ("dicom", (*LISTED, "image_size", "mode", "fit", "spacing", "window", *DIVISION)),
    ],
)
def test_every_entry_names_its_options(name: str, options: tuple[str, ...]) -> None:
    assert DATASETS[name].options == options


def test_only_the_phantom_needs_no_files() -> None:
    assert [name for name, entry in DATASETS.items() if not entry.needs_files] == ["phantom"]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("breastmnist", "medmnist/breastmnist.npz"),
        ("chest_xray", "chest_xray/train/NORMAL"),
        ("ham10000", "ham10000/HAM10000_metadata.csv"),
        ("msd", "msd/Task04_Hippocampus/dataset.json"),
    ],
)
def test_the_folder_reaches_the_loader(name: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="there is no such") as caught:
        load_dataset(name, root=tmp_path)
    assert caught.value.path == tmp_path / missing


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("monai", "nibabel", "scipy", "skimage", "flwr")
    program = f"import sys, hbdp_fed.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
