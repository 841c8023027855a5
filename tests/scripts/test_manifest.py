"""A manifest written from folders: classes, hospitals, patients and splits from paths, and what cannot be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbdp_fed.data import load_dataset
from scripts.manifest.__main__ import main
from tests.data.dicom.writing import write_dicom, write_series
from tests.data.own.writing import read_manifest, write_volume

PATIENT = r"(person)(\d+)_|(IM)-(\d+)"


def touched(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    folder = tmp_path / "xrays"
    touched(
        folder, "train/NORMAL/IM-7-1.jpeg", "train/NORMAL/IM-7-2.jpeg", "train/PNEUMONIA/person7_virus_1.jpeg",
        "test/NORMAL/IM-8-1.jpeg", "test/PNEUMONIA/person9_bacteria_1.JPG", "train/.hidden.png", "train/notes.txt",
        "._train/NORMAL/IM-7-1.jpeg",
    )  # fmt: skip
    return folder


def written(folder: Path, *arguments: str, kind: str = "imagefolder") -> list[dict[str, str]]:
    target = folder.parent / "m.csv"
    assert main([kind, str(folder), "-o", str(target), "--force", *arguments]) == 0
    return read_manifest(target)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


def test_classes_patients_and_splits_come_from_paths(xrays: Path) -> None:
    rows = written(xrays, "--patient-pattern", PATIENT)
    assert [tuple(row.values()) for row in rows] == [
        ("test/NORMAL/IM-8-1.jpeg", "NORMAL", "IM-8", "test"),
        ("test/PNEUMONIA/person9_bacteria_1.JPG", "PNEUMONIA", "person-9", "test"),
        ("train/NORMAL/IM-7-1.jpeg", "NORMAL", "IM-7", "train"),
        ("train/NORMAL/IM-7-2.jpeg", "NORMAL", "IM-7", "train"),
        ("train/PNEUMONIA/person7_virus_1.jpeg", "PNEUMONIA", "person-7", "train"),
    ]
    assert list(rows[0]) == ["path", "label", "patient", "split"]


def test_patients_in_two_splits_are_told_and_settled_by_choice(xrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touched(xrays, "test/NORMAL/IM-7-3.jpeg")
    given = ("imagefolder", str(xrays), "--patient-pattern", PATIENT, "-o", str(xrays.parent / "m.csv"))
    told = refused(capsys, *given)
    assert told.startswith("error: --patients-in-splits: 1 of 4 patients are in more than one split by their files' na")
    assert "IM-7 (test, train)" in told
    assert "own (numbers start anew in every split" in told
    assert not (xrays.parent / "m.csv").exists()
    own = written(xrays, "--patient-pattern", PATIENT, "--patients-in-splits", "own")
    assert {row["patient"] for row in own if "IM-7-" in row["path"]} == {"train/IM-7", "test/IM-7"}
    assert all(row["patient"].startswith(row["split"] + "/") for row in own)
    divided = written(xrays, "--patient-pattern", PATIENT, "--patients-in-splits", "divide")
    assert list(divided[0]) == ["path", "label", "patient"]


def test_words_come_from_folders_and_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    touched(folder, "north/scan1/a_benign_3.png", "south/scan2/b_malign_4.png")
    rows = written(folder, "--label-from", r"pattern:_([a-z]+)_", "--hospital-from", "folder:1")
    assert [(row["label"], row["hospital"]) for row in rows] == [("benign", "north"), ("malign", "south")]
    assert [row["label"] for row in written(folder, "--label-from", "folder:2")] == ["scan1", "scan2"]


def test_masks_are_no_records_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "f"
    touched(folder, "images/a.jpg", "images/b.jpg", "masks/a_seg.png", "masks/b_seg.png")
    rows = written(folder, "--mask-from", "masks/{stem}_seg.png")
    assert [tuple(row.values()) for row in rows] == [
        ("images/a.jpg", "masks/a_seg.png"), ("images/b.jpg", "masks/b_seg.png"),
    ]  # fmt: skip
    (folder / "masks/b_seg.png").unlink()
    assert len(written(folder, "--mask-from", "masks/{stem}_seg.png")) == 2
    assert "1 of 2 records have no mask there: images/b.jpg (masks/b_seg.png)" in caplog.text
    touched(tmp_path / "v", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    assert [row["mask"] for row in written(tmp_path / "v", "--mask-from", "labelsTr/{name}", kind="nifti")] == [
        "labelsTr/a.nii.gz"
    ]


def test_dicom_is_known_by_its_content_and_series_are_folders(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for name in ("p1", "p2"):
        write_series(folder / name / "ct", np.zeros((3, 4, 4), np.int16))
        (folder / name / "outline").mkdir()
        Image.new("L", (4, 4), 255).save(folder / name / "outline/0.png")
    (folder / "p1/ct/IM0.dcm").rename(folder / "p1/ct/00000001")
    touched(folder, "p1/ct/notes.dcm", "DICOMDIR")
    rows = written(
        folder, "--series", "--mask-from", "{parent}/outline", "--patient-pattern", "^([^/]+)/", kind="dicom"
    )
    assert [tuple(row.values()) for row in rows] == [("p1/ct", "p1/outline", "p1"), ("p2/ct", "p2/outline", "p2")]
    assert len(written(folder, kind="dicom")) == 6


def test_what_is_written_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the folder itself, where paths need no other start."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "set, with a comma"
    for number in range(20):
        path = folder / ("a", "b")[number % 2] / f"p{number // 2}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(path)
    assert main(["imagefolder", str(folder), "--patient-pattern", r"/(p\d+)_"]) == 0
    told = capsys.readouterr().out
    assert "20 records, 2 classes (a 10, b 10), 10 patients" in told
    assert "data.folder" not in told
    options = {"manifest": "set, with a comma/manifest.csv", "image_size": 16}
    dataset = load_dataset("imagefolder", root=tmp_path, options=options)
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == 20
    assert dataset.group == "patient"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--patient-pattern", r"person(\d+)"], "--patient-pattern: finds nothing in 3 of 5 paths: test/NORMAL/IM-8-1"),
        (["--patient-pattern", "person"], "--patient-pattern: 'person' has no group"),
        (["--patient-pattern", "("], "--patient-pattern: '(' is no regular expression"),
        (
            ["--label-from", "folder:0"],
            "--label-from: must be parent, folder:N (from 1) or pattern:REGEX, got 'folder:0",
        ),
        (["--hospital-from", "folder:3"], "--hospital-from: finds nothing in 5 of 5 paths"),
        (["--mask-from", "masks/{base}.png"], "--mask-from: 'masks/{base}.png' may hold {parent}, {name} and {stem}"),
        (["--mask-from", "masks/{stem}.png"], "--mask-from: no record has a mask there"),
        (["--series"], "--series: is for dicom"),
        (["-o", "nowhere/m.csv"], "--output: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_told_from_the_paths_is_refused(
    arguments: list[str], told: str, xrays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "imagefolder", str(xrays), *arguments).startswith(f"error: {told}")


def test_a_table_that_is_there_stays(xrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (xrays / "manifest.csv").write_text("mine")
    assert "is there already" in refused(capsys, "imagefolder", str(xrays))
    assert (xrays / "manifest.csv").read_text() == "mine"


def test_folders_that_hold_nothing_are_refused(xrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no record of the kind nifti" in refused(capsys, "nifti", str(xrays))
    assert "there is no folder" in refused(capsys, "nifti", str(xrays / "none"))
    touched(xrays, "more/IM-9-1.jpeg")
    assert "1 records lie in none of them: more/IM-9-1.jpeg" in refused(capsys, "imagefolder", str(xrays))


def test_the_help_explains_where_words_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "pattern:REGEX  the groups of a regular expression" in capsys.readouterr().out


def test_volumes_and_files_of_dicom_are_found(tmp_path: Path) -> None:
    write_volume(tmp_path / "f/x/a.nii", np.zeros((4, 4, 4), np.float32))
    (tmp_path / "f/y").mkdir()
    write_dicom(tmp_path / "f/y/a", np.zeros((4, 4), np.uint16))
    assert [row["path"] for row in written(tmp_path / "f", kind="nifti")] == ["x/a.nii"]
    assert [row["path"] for row in written(tmp_path / "f", kind="dicom")] == ["y/a"]


def test_real_x_rays_are_divided_as_their_loader_says(hbdp_data: Path, tmp_path: Path) -> None:
    """170 and 94 numbers are in both splits (hbdp_fed/data/chest_xray.py)."""
    target = tmp_path / "m.csv"
    given = ["imagefolder", str(hbdp_data / "chest_xray"), "--patient-pattern", PATIENT, "-o", str(target)]
    assert main(given) == 2
    assert main([*given, "--patients-in-splits", "own"]) == 0
    rows = read_manifest(target)
    assert len(rows) == 5840
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(own) == 1 for own in splits.values())
    bare: dict[str, set[str]] = {}
    for row in rows:
        bare.setdefault(row["patient"].partition("/")[2], set()).add(row["split"])
    assert sum(len(own) > 1 for own in bare.values()) == 170 + 94
