"""HAM10000: the real table read a second time here, and small folders of the same layout with bad records."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hbdp_fed.data import ham10000
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.ham10000 import DIAGNOSES, load_ham10000
from hbdp_fed.errors import DataFileError, SettingError

SIZE = 16
SOURCES = {"vidir_molemax": 3954, "vidir_modern": 3363, "rosendahl": 2259, "vienna_dias": 439}
COUNTS = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")

Row = dict[str, str]


def splits(dataset: ImageDataset) -> tuple[Records, Records, Records]:
    return dataset.train, dataset.val, dataset.test


def names(records: Records) -> list[str]:
    assert records.names is not None
    return list(records.names.tolist())


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The real set. Its table alone decides counts, classes and the division, so most tests read no photograph.


@pytest.fixture(scope="module")
def rows(hbdp_data: Path) -> dict[str, Row]:
    return {row["image_id"]: row for row in read_rows(hbdp_data / "ham10000" / "HAM10000_metadata.csv")}


@pytest.fixture
def blank_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(paths: Sequence[Path], *, mode: str, image_size: int, **_: object) -> tuple[Tensor, Tensor]:
        return torch.zeros((len(paths), len(mode), 1, 1), dtype=torch.uint8), torch.arange(len(paths))

    monkeypatch.setattr(ham10000, "read_photographs", read)


@pytest.fixture(scope="module")
def outlined(hbdp_data: Path) -> ImageDataset:
    return load_ham10000(root=hbdp_data, task="segmentation", image_size=24)


@pytest.mark.usefixtures("blank_photographs")
def test_the_four_real_sources_have_their_numbers_and_the_binary_task_its_positives(hbdp_data: Path) -> None:
    dataset = load_ham10000(root=hbdp_data)
    assert (dataset.name, dataset.task, dataset.group) == ("ham10000", "binary", "lesion")
    everyone = [word for part in splits(dataset) for word in part.attributes["dataset"].tolist()]
    assert Counter(everyone) == SOURCES
    assert (
        sum(int(part.labels.sum()) for part in splits(dataset))
        == 1954
        == sum(COUNTS[d] for d in ham10000.NEEDS_ATTENTION)
    )
    assert dataset.skipped == ()


@pytest.mark.usefixtures("blank_photographs")
def test_the_seven_classes_are_those_of_the_table(hbdp_data: Path, rows: dict[str, Row]) -> None:
    dataset = load_ham10000(root=hbdp_data, task="multiclass")
    assert len(dataset.class_names) == 7
    assert "melanoma" in dataset.class_names
    short = {name: dx for dx, name in DIAGNOSES.items()}
    found: Counter[str] = Counter()
    for part in splits(dataset):
        for name, label in zip(names(part), part.labels.tolist(), strict=True):
            found[short[dataset.class_names[label]]] += 1
            assert short[dataset.class_names[label]] == rows[name]["dx"]
    assert found == COUNTS


def test_every_real_photograph_is_in_one_split_and_no_lesion_in_two(
    outlined: ImageDataset, rows: dict[str, Row]
) -> None:
    everyone = [name for part in splits(outlined) for name in names(part)]
    assert len(everyone) == 10015
    assert sorted(everyone) == sorted(rows)
    lesions = [{rows[name]["lesion_id"] for name in names(part)} for part in splits(outlined)]
    assert len(set.union(*lesions)) == sum(map(len, lesions)) == 7470
    assert [len(part) for part in lesions] == pytest.approx([0.7 * 7470, 0.1 * 7470, 0.2 * 7470], abs=1)


def test_every_real_source_and_every_diagnosis_is_spread_evenly(outlined: ImageDataset, rows: dict[str, Row]) -> None:
    for column in ("dataset", "dx"):
        everyone = Counter({row["lesion_id"]: row[column] for row in rows.values()}.values())
        for part, share in ((outlined.val, 0.1), (outlined.test, 0.2)):
            inside = Counter({rows[name]["lesion_id"]: rows[name][column] for name in names(part)}.values())
            for word, count in everyone.items():
                assert inside[word] == pytest.approx(share * count, abs=8)


def test_groups_are_the_lesions(outlined: ImageDataset, rows: dict[str, Row]) -> None:
    lesion_of: dict[int, str] = {}
    for part in splits(outlined):
        assert part.groups is not None
        for name, group in zip(names(part), part.groups.tolist(), strict=True):
            assert lesion_of.setdefault(group, rows[name]["lesion_id"]) == rows[name]["lesion_id"]
    assert len(lesion_of) == len(set(lesion_of.values())) == 7470


@pytest.mark.usefixtures("blank_photographs")
def test_the_division_is_the_same_for_every_task_and_size_and_another_for_another_seed(
    hbdp_data: Path, outlined: ImageDataset
) -> None:
    expected = [names(part) for part in splits(outlined)]
    for task, size in (("binary", 64), ("multiclass", 32)):
        again = load_ham10000(root=hbdp_data, task=task, image_size=size)
        assert [names(part) for part in splits(again)] == expected
    other = load_ham10000(root=hbdp_data, split_seed=1)
    assert set(names(other.test)) != set(expected[2])


def test_attributes_are_the_tables_and_ages_are_in_bands(outlined: ImageDataset, rows: dict[str, Row]) -> None:
    bands: Counter[str] = Counter()
    for part in splits(outlined):
        assert set(part.attributes) == {"dataset", "sex", "localization", "dx", "dx_type", "age"}
        for column in ("dataset", "sex", "localization", "dx", "dx_type"):
            assert part.attributes[column].tolist() == [rows[name][column] for name in names(part)]
        for name, band in zip(names(part), part.attributes["age"].tolist(), strict=True):
            age = rows[name]["age"]
            bands[band] += 1
            if not age:
                assert band == "unknown"
            else:
                assert band == ("0 to 39" if float(age) < 40 else "40 to 59" if float(age) < 60 else "60 and above")
    assert bands["unknown"] == 57
    assert len(bands) == 4


def position(dataset: ImageDataset) -> dict[str, tuple[Records, int]]:
    return {name: (part, row) for part in splits(dataset) for row, name in enumerate(names(part))}


def test_outlines_are_read_as_grey_also_where_the_palette_is_inverted(hbdp_data: Path, outlined: ImageDataset) -> None:
    places, inverted = position(outlined), 0
    for path in sorted((hbdp_data / "ham10000" / "masks_200x150").iterdir())[:400]:
        with Image.open(path) as picture:
            mode, stored, grey = picture.mode, np.asarray(picture), np.asarray(picture.convert("L"))
        # The middle of each of 24 equal strips.
        down, across = (((np.arange(24) + 0.5) * side / 24).astype(int) for side in grey.shape)
        expected = grey[np.ix_(down, across)] > 127
        part, row = places[path.name.removesuffix("_segmentation.png")]
        np.testing.assert_array_equal(part.labels[row].numpy(), expected)
        if mode == "P":
            inverted += bool(((stored > 127) != (grey > 127)).all())
    assert inverted > 10


def test_lesions_are_in_the_middle_of_the_photographs_and_darker_than_the_skin(outlined: ImageDataset) -> None:
    for part in splits(outlined):
        assert part.labels.shape == (len(part), 24, 24)
        assert part.labels.dtype == torch.int64
        assert set(part.labels.unique().tolist()) == {0, 1}
        middle, corners = part.labels[:, 11:13, 11:13].double(), part.labels[:, ::23, ::23].double()
        assert middle.mean() > 0.9
        assert corners.mean() < 0.1
        grey, lesion = part.images.double().mean(dim=1), part.labels == 1
        assert grey[lesion].mean() < grey[~lesion].mean() - 20


def test_real_photographs_belong_to_their_names_in_colour(hbdp_data: Path, outlined: ImageDataset) -> None:
    assert outlined.train.images.dtype == torch.uint8
    for name in names(outlined.train)[::1000]:
        part, row = position(outlined)[name]
        with Image.open(hbdp_data / "ham10000" / "HAM10000_images" / f"{name}.jpg") as picture:
            whole = np.asarray(picture.convert("RGB"), dtype=np.float64)
        expected = whole.mean(axis=(0, 1))
        assert part.images[row].double().mean(dim=(1, 2)).numpy() == pytest.approx(expected, abs=3)
        assert part.images[row].double().std() == pytest.approx(whole.std(), rel=0.2)


# Written sets.


def level(number: int) -> int:
    return 40 + 3 * number


def write_set(root: Path, lesions: int = 40) -> Path:
    """Folders of the archives' form: photographs in two parts, of every third lesion two, and outlines of all."""
    folder = root / "ham10000"
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2", "masks"):
        (folder / part).mkdir(parents=True)
    rows, number = [], 0
    for lesion in range(lesions):
        for _ in range(2 if lesion % 3 == 0 else 1):
            name = f"ISIC_{number:07d}"
            part = f"HAM10000_images_part_{1 + number % 2}"
            Image.new("RGB", (40, 30), (level(number), 30, 60)).save(folder / part / f"{name}.jpg")
            outline = Image.new("L", (40, 30))
            outline.paste(255, (10, 10, 30, 20))
            outline.save(folder / "masks" / f"{name}_segmentation.png")
            source, dx = list(SOURCES)[lesion % 4], list(COUNTS)[lesion % 7]
            rows.append([f"HAM_{lesion:07d}", name, dx, "histo", "50.0", "male", "back", source])
            number += 1
    # The real table is not in the order of the photographs either.
    write_table(folder / "HAM10000_metadata.csv", rows[::-1])
    return folder


def write_table(path: Path, rows: list[list[str]], columns: Sequence[str] = COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def lines(folder: Path) -> list[list[str]]:
    return [list(row.values()) for row in read_rows(folder / "HAM10000_metadata.csv")]


def test_photographs_are_found_in_all_parts_and_belong_to_their_rows(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    known = {row[1]: row for row in lines(folder)}
    dataset = load_ham10000(root=tmp_path, image_size=SIZE, task="segmentation")
    assert sum(map(len, splits(dataset))) == len(known) == 54
    for part in splits(dataset):
        for row, name in enumerate(names(part)):
            red, green, blue = part.images[row].double().mean(dim=(1, 2)).tolist()
            assert red == pytest.approx(level(int(name[5:])), abs=4)
            assert (green, blue) == (pytest.approx(30, abs=4), pytest.approx(60, abs=4))
            assert part.attributes["dx"][row] == known[name][2]
            # A third of the height and half of the width: columns 4 to 11 and, of the middles of rows, 5 to 10.
            assert part.labels[row].sum() == 8 * int(((np.arange(16) + 0.5) * 30 / 16 // 10 == 1).sum())
    assert dataset.class_names == ("skin", "lesion")


def remove(path: Path) -> Path:
    path.unlink()
    return path


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


def change_row(folder: Path, number: int, **cells: str) -> Path:
    rows = lines(folder)
    for name, value in cells.items():
        rows[number][COLUMNS.index(name)] = value
    return write_table(folder / "HAM10000_metadata.csv", rows)


def missing(folder: Path) -> Path:
    remove(folder / "HAM10000_images_part_1" / "ISIC_0000004.jpg")
    return folder / "HAM10000_images" / "ISIC_0000004.jpg"


def cut_row(folder: Path) -> Path:
    rows = lines(folder)
    return write_table(folder / "HAM10000_metadata.csv", [*rows[:-1], rows[-1][:4]])


def repeat_row(folder: Path) -> Path:
    rows = lines(folder)
    return write_table(folder / "HAM10000_metadata.csv", [*rows, ["HAM_7777777", *rows[5][1:]]])


BAD: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "missing photograph": (missing, "there is no such file", 1),
    "truncated photograph": (
        lambda folder: truncate(folder / "HAM10000_images_part_2" / "ISIC_0000005.jpg"),
        "cannot be read",
        1,
    ),
    "missing outline": (
        lambda folder: remove(folder / "masks" / "ISIC_0000007_segmentation.png"),
        "there is no such file",
        1,
    ),
    "truncated outline": (
        lambda folder: truncate(folder / "masks" / "ISIC_0000008_segmentation.png"),
        "cannot be read",
        1,
    ),
    "unknown diagnosis": (
        lambda folder: change_row(folder, 3, dx="naevus"),
        "line 5 has the diagnosis 'naevus', which is none of akiec, bcc",
        1,
    ),
    "no lesion": (lambda folder: change_row(folder, 3, lesion_id=""), "line 5 has no lesion_id", 1),
    "cut row": (cut_row, "line 55 has no age, sex, localization, dataset", 1),
    "repeated row": (repeat_row, "line 56 has the photograph ISIC_0000048 for a second time", 0),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_an_error_with_its_path_or_left_out(case: str, tmp_path: Path) -> None:
    harm, message, lost = BAD[case]
    path = harm(write_set(tmp_path))
    with pytest.raises(DataFileError, match=message) as caught:
        load_ham10000(root=tmp_path, image_size=SIZE, task="segmentation")
    assert caught.value.path == path
    dataset = load_ham10000(root=tmp_path, image_size=SIZE, task="segmentation", on_bad_record="skip")
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith(f"{path}: {message}")
    assert sum(map(len, splits(dataset))) == 54 - lost
    for part in splits(dataset):
        for row, name in enumerate(names(part)):
            assert part.images[row, 0].double().mean() == pytest.approx(level(int(name[5:])), abs=4)
        aligned = [part.images, part.labels, part.groups, part.names, *part.attributes.values()]
        assert {len(values) for values in aligned if values is not None} == {len(part)}


@pytest.mark.parametrize("case", ["missing photograph", "missing outline"])
def test_leaving_a_record_out_moves_no_other_to_another_split(case: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    before = load_ham10000(root=tmp_path, image_size=SIZE)
    BAD[case][0](folder)
    after = load_ham10000(root=tmp_path, image_size=SIZE, task="segmentation", on_bad_record="skip")
    for part, whole in zip(splits(after), splits(before), strict=True):
        assert set(names(part)) <= set(names(whole))


def test_a_missing_outline_only_matters_where_outlines_are_asked_for(tmp_path: Path) -> None:
    BAD["missing outline"][0](write_set(tmp_path))
    assert sum(map(len, splits(load_ham10000(root=tmp_path, image_size=SIZE)))) == 54


def test_empty_cells_are_unknown(tmp_path: Path) -> None:
    change_row(write_set(tmp_path), 0, age="", sex="", localization="", dataset="")
    dataset = load_ham10000(root=tmp_path, image_size=SIZE)
    part, row = position(dataset)["ISIC_0000053"]
    assert {part.attributes[name][row] for name in ("age", "sex", "localization", "dataset")} == {"unknown"}


def test_hidden_twins_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    before = load_ham10000(root=tmp_path, image_size=SIZE)
    (folder / "HAM10000_images_part_1" / "._ISIC_0000004.jpg").write_bytes(b"Mac OS X")
    table = folder / "HAM10000_metadata.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    after = load_ham10000(root=tmp_path, image_size=SIZE)
    assert torch.equal(before.train.images, after.train.images)


def test_a_missing_table_is_named_with_the_variable(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such file; set HBDP_DATA") as caught:
        load_ham10000(root=tmp_path)
    assert caught.value.path == tmp_path / "ham10000" / "HAM10000_metadata.csv"


def test_a_table_without_a_column_is_refused_even_under_skip(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    write_table(folder / "HAM10000_metadata.csv", [row[:-1] for row in lines(folder)], COLUMNS[:-1])
    with pytest.raises(DataFileError, match="has no column dataset; it should be the table of HAM10000") as caught:
        load_ham10000(root=tmp_path, on_bad_record="skip")
    assert caught.value.path == folder / "HAM10000_metadata.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column lesion_id, image_id"),
        (b"\xff\xfe\x00binary", "cannot be read"),
        (",".join(COLUMNS).encode(), "has no row with a known diagnosis"),
    ],
)
def test_a_file_that_is_not_the_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (write_set(tmp_path) / "HAM10000_metadata.csv").write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        load_ham10000(root=tmp_path)


@pytest.mark.parametrize("folders", ["HAM10000_images*", "masks"])
def test_a_set_without_a_readable_record_is_an_error_even_under_skip(folders: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    for part in folder.glob(folders):
        part.rename(folder / f"elsewhere_{part.name}")
    with pytest.raises(DataFileError, match="without a single record"):
        load_ham10000(root=tmp_path, image_size=SIZE, task="segmentation", on_bad_record="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multilabel"}, r"^data\.task: 'multilabel' is not known; choose one of: binary, multiclass, segm"),
        ({"image_size": 8}, r"^data\.image_size: must be an integer of at least 16"),
        ({"val_fraction": 1.5}, r"^data\.val_fraction: must be a number strictly between 0 and 1"),
        ({"test_fraction": 0}, r"^data\.test_fraction"),
        ({"split_seed": -1}, r"^data\.split_seed"),
        ({"on_bad_record": "ignore"}, r"^data\.on_bad_record: 'ignore' is not known"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        load_ham10000(root=tmp_path, **options)  # type: ignore[arg-type]
