"""RadImageNet: small files of the true form that the tests write, and what is wrong with bad ones."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data.radimagenet import load_radimagenet
from hbdp_fed.errors import DataFileError, SettingError

SIZE = 16
# Folder below radiology_ai, class's name, images in the training split.
CLASSES = (
    ("MR/af/Plantar_plate_tear", "Plantar_plate_tear", 12),
    ("MR/knee/acl_pathology", "acl_pathology", 8),
    ("CT/lung/Nodule", "Nodule", 4),
    ("US/gb", "gb", 4),
)


def write_set(root: Path, side: int = 224) -> Path:
    """Nested folders of grey PNGs and three tables; a class's images have one grey level."""
    folder = root / "radimagenet"
    rng = np.random.default_rng(0)
    for split, divisor in (("train", 1), ("val", 4), ("test", 2)):
        rows = []
        for number, (place, label, count) in enumerate(CLASSES):
            for image in range(count // divisor):
                name = f"radiology_ai/{place}/{split}{image:06d}.png"
                rows.append((name, label))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (side, side), 50 + 50 * number).save(folder / name)
        write_table(folder / f"RadiologyAI_{split}.csv", [rows[i] for i in rng.permutation(len(rows))])
    return folder


def write_table(path: Path, rows: list[tuple[str, str]], header: tuple[str, ...] = ("filename", "label")) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def table(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(name, label) for name, label in list(csv.reader(file))[1:]]


def test_images_labels_and_places_are_the_tables(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    dataset = load_radimagenet(root=tmp_path)
    assert (dataset.name, dataset.task) == ("radimagenet", "multiclass")
    assert dataset.class_names == ("Nodule", "Plantar_plate_tear", "acl_pathology", "gb")
    place_of = {label: place for place, label, _ in CLASSES}
    level_of = {label: 50 + 50 * number for number, (_, label, _) in enumerate(CLASSES)}
    for split, records in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        rows = table(folder / f"RadiologyAI_{split}.csv")
        assert records.images.shape == (len(rows), 1, 224, 224)
        assert records.images.dtype == torch.uint8
        assert records.names is not None
        assert records.names.tolist() == [name for name, _ in rows]
        labels = [dataset.class_names[number] for number in records.labels.tolist()]
        assert labels == [label for _, label in rows]
        assert records.images[:, 0, 5, 5].tolist() == [level_of[label] for label in labels]
        assert records.attributes["modality"].tolist() == [place_of[label].split("/")[0] for label in labels]
        assert records.attributes["anatomy"].tolist() == [place_of[label].split("/")[1] for label in labels]
        assert records.groups is None
    assert dataset.skipped == ()


def test_images_are_scaled(tmp_path: Path) -> None:
    write_set(tmp_path)
    assert load_radimagenet(root=tmp_path, image_size=SIZE).val.images.shape == (7, 1, SIZE, SIZE)


def test_other_than_165_classes_are_said_and_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path, side=SIZE)
    with caplog.at_level(logging.WARNING):
        load_radimagenet(root=tmp_path, image_size=SIZE)
    assert "RadImageNet has 165 classes, but the tables in" in caplog.text
    assert "name 4" in caplog.text


def test_165_classes_are_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "radimagenet"
    (folder / "radiology_ai/CT/abd").mkdir(parents=True)
    rows = []
    for number in range(165):
        rows.append((f"radiology_ai/CT/abd/{number}.png", f"class-{number:03d}"))
        Image.new("L", (SIZE, SIZE), number).save(folder / rows[-1][0])
    for split in ("train", "val", "test"):
        write_table(folder / f"RadiologyAI_{split}.csv", rows)
    with caplog.at_level(logging.WARNING):
        dataset = load_radimagenet(root=tmp_path, image_size=SIZE)
    assert caplog.text == ""
    assert dataset.train.labels.tolist() == list(range(165))


def test_a_class_that_only_the_test_split_has_is_a_class(tmp_path: Path) -> None:
    folder = write_set(tmp_path, side=SIZE)
    rows = table(folder / "RadiologyAI_test.csv")
    write_table(folder / "RadiologyAI_test.csv", [(rows[0][0], "Aardvark"), *rows[1:]])
    dataset = load_radimagenet(root=tmp_path, image_size=SIZE)
    assert dataset.class_names[0] == "Aardvark"
    assert dataset.test.labels[0] == 0
    assert not (dataset.train.labels == 0).any()


def test_a_subset_keeps_the_proportions_and_all_class_names(tmp_path: Path) -> None:
    write_set(tmp_path, side=SIZE)
    whole, half, again, other = (
        load_radimagenet(root=tmp_path, image_size=SIZE, max_records=count, subset_seed=seed)
        for count, seed in ((0, 0), (14, 0), (14, 0), (14, 1))
    )
    assert whole.train.labels.bincount().tolist() == [4, 12, 8, 4]
    assert half.train.labels.bincount().tolist() == [2, 6, 4, 2]
    assert (len(half.val), len(half.test)) == (7, 14)
    assert half.class_names == whole.class_names
    assert np.array_equal(half.train.names, again.train.names)  # type: ignore[arg-type]
    assert not np.array_equal(half.train.names, other.train.names)  # type: ignore[arg-type]
    tiny = load_radimagenet(root=tmp_path, image_size=SIZE, max_records=2)
    assert (len(tiny.train), len(tiny.class_names)) == (2, 4)


def test_a_subset_does_not_look_at_the_other_images(tmp_path: Path) -> None:
    folder = write_set(tmp_path, side=SIZE)
    names = load_radimagenet(root=tmp_path, image_size=SIZE, max_records=4).train.names
    assert names is not None
    for name, _ in table(folder / "RadiologyAI_train.csv"):
        if name not in names:
            (folder / name).unlink()
    again = load_radimagenet(root=tmp_path, image_size=SIZE, max_records=4)
    assert np.array_equal(names, again.train.names)  # type: ignore[arg-type]


def test_tables_may_have_other_names_columns_and_places(tmp_path: Path) -> None:
    folder = write_set(tmp_path, side=SIZE)
    (folder / "split").mkdir()
    rows = [(name, label, "x") for name, label in table(folder / "RadiologyAI_train.csv")]
    # As a spreadsheet writes it: with a byte order mark, and columns of its own.
    with (folder / "split" / "mine.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("filename", "label", "note"), *rows])
    dataset = load_radimagenet(root=tmp_path, image_size=SIZE, train_csv="split/mine.csv")
    assert len(dataset.train) == 28


@pytest.mark.parametrize(
    ("name", "places"),
    [("CT/lung/Nodule/x.png", ("CT", "lung")), ("US/x.png", ("US", "unknown")), ("x.png", ("unknown", "unknown"))],
)
def test_a_shorter_path_leaves_unknown_what_it_does_not_say(name: str, places: tuple[str, str], tmp_path: Path) -> None:
    folder = write_set(tmp_path, side=SIZE)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (SIZE, SIZE)).save(folder / name)
    write_table(folder / "RadiologyAI_val.csv", [(name, "Nodule")])
    attributes = load_radimagenet(root=tmp_path, image_size=SIZE).val.attributes
    assert (attributes["modality"][0], attributes["anatomy"][0]) == places


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def remove(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("harm", "message"),
    [(truncate, "cannot be read"), (empty, "cannot be read"), (remove, "there is no such file")],
)
def test_a_bad_image_is_an_error_with_its_path_or_left_out(
    harm: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    folder = write_set(tmp_path)
    path = harm(folder / "radiology_ai/MR/knee/acl_pathology/train000003.png")
    with pytest.raises(DataFileError, match=message) as caught:
        load_radimagenet(root=tmp_path, image_size=SIZE)
    assert caught.value.path == path
    dataset = load_radimagenet(root=tmp_path, image_size=SIZE, on_bad_record="skip")
    assert [line.split(": ")[0] for line in dataset.skipped] == [str(path)]
    assert len(dataset.train) == len(dataset.train.images) == len(dataset.train.attributes["anatomy"]) == 27
    assert dataset.train.labels.bincount().tolist() == [4, 12, 7, 4]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("", "Nodule"), "has no file name or no label"),
        (("radiology_ai/CT/lung/Nodule/test000000.png", " "), "has no file name or no label"),
        (("radiology_ai/CT/lung/Nodule/test000000.png",), "has no file name or no label"),
        (("../../secret.png", "Nodule"), "names a file outside of the data set's folder"),
        (("/secret.png", "Nodule"), "names a file outside of the data set's folder"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number_or_left_out(row: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = write_set(tmp_path, side=SIZE) / "RadiologyAI_test.csv"
    rows = table(path)
    write_table(path, [*rows[:2], row, *rows[2:]])  # type: ignore[list-item]
    with pytest.raises(DataFileError, match=rf"line 4 {message}") as caught:
        load_radimagenet(root=tmp_path, image_size=SIZE)
    assert caught.value.path == path
    dataset = load_radimagenet(root=tmp_path, image_size=SIZE, on_bad_record="skip")
    assert len(dataset.skipped) == 1
    assert len(dataset.test) == 14


def write_latin(path: Path) -> None:
    path.write_bytes(b"filename,label\nx.png,l\xe9sion\n")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove, "there is no such file; set HBDP_DATA"),
        (empty, "has no column filename, label"),
        (lambda path: write_table(path, []), "has no line with a file name and a label"),
        (lambda path: write_table(path, [("a", "b")], header=("filename", "class")), "has no column label"),
        (write_latin, "cannot be read"),
        (lambda path: path.write_bytes(b"filename,label\n" + b'"' + b"x" * 200_000), "cannot be read"),
    ],
)
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_bad_table_is_always_an_error(
    harm: Callable[[Path], object], message: str, policy: str, tmp_path: Path
) -> None:
    path = write_set(tmp_path, side=SIZE) / "RadiologyAI_val.csv"
    harm(path)
    with pytest.raises(DataFileError, match=message) as caught:
        load_radimagenet(root=tmp_path, image_size=SIZE, on_bad_record=policy)
    assert caught.value.path == path


def test_a_split_without_a_readable_image_is_an_error_even_under_skip(tmp_path: Path) -> None:
    folder = write_set(tmp_path, side=SIZE)
    write_table(folder / "RadiologyAI_val.csv", [("radiology_ai/CT/lung/Nodule/nowhere.png", "Nodule")])
    with pytest.raises(DataFileError, match="names no image that can be read") as caught:
        load_radimagenet(root=tmp_path, image_size=SIZE, on_bad_record="skip")
    assert caught.value.path == folder / "RadiologyAI_val.csv"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, r"^data\.image_size: must be an integer of at least 16"),
        ({"max_records": -1}, r"^data\.max_records: must be an integer of at least 0"),
        ({"subset_seed": -1}, r"^data\.subset_seed"),
        ({"on_bad_record": "ignore"}, r"^data\.on_bad_record: 'ignore' is not known"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        load_radimagenet(root=tmp_path, **options)  # type: ignore[arg-type]
