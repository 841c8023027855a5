"""The Decathlon's layout: the real hippocampi, and small written tasks whose every voxel is computed by hand."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.msd import load_msd
from hbdp_fed.errors import DataFileError, SettingError

TASK = "Task03_Liver"
SHAPE = (18, 20, 16)
COUNT = 10
RAS = np.diag([0.8, 0.8, 2.5, 1.0])
LPS = np.diag([-0.8, -0.8, 2.5, 1.0])
LABELS = {"0": "background", "1": "liver", "2": "cancer"}


def splits(dataset: ImageDataset) -> tuple[Records, Records, Records]:
    return dataset.train, dataset.val, dataset.test


def by_name(dataset: ImageDataset) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for part in splits(dataset):
        assert part.names is not None
        assert len(part.images) == len(part.labels) == len(part.names)
        for name, image, label in zip(part.names.tolist(), part.images, part.labels, strict=True):
            found[name] = (image, label)
    assert len(found) == sum(map(len, splits(dataset)))
    return found


# The real hippocampi.


@pytest.fixture(scope="module")
def hippocampi(hbdp_data: Path) -> ImageDataset:
    return load_msd(root=hbdp_data, on_bad_record="skip")


def test_a_real_volume_without_a_label_is_an_error_that_names_it(hbdp_data: Path) -> None:
    with pytest.raises(DataFileError, match="is a volume without label") as caught:
        load_msd(root=hbdp_data)
    assert caught.value.path.name == "hippocampus_118.nii.gz"


def test_the_real_strays_are_left_out_and_counted_and_everything_else_is_read(hippocampi: ImageDataset) -> None:
    assert [line.split(": ")[0].split("Hippocampus/")[1] for line in hippocampi.skipped] == [
        "imagesTr/hippocampus_118.nii.gz",
        "labelsTr/hippocampus_010.nii.gz",
        "labelsTr/hippocampus_281.nii.gz",
    ]
    assert [len(part) for part in splits(hippocampi)] == [182, 26, 52]
    assert len(by_name(hippocampi)) == 260
    assert (hippocampi.name, hippocampi.task, hippocampi.group) == ("msd", "segmentation", "volume")
    assert hippocampi.class_names == ("background", "Anterior", "Posterior")
    assert hippocampi.spacing == (1.0, 1.0, 1.0)
    assert hippocampi.train.groups is None


def test_real_grey_levels_use_all_of_zero_to_one_however_bright_the_scanner_was(hippocampi: ImageDataset) -> None:
    for part in splits(hippocampi):
        assert part.images.dtype == torch.float32
        assert part.images.shape[1:] == (1, 40, 56, 40)
        flat = part.images.flatten(1)
        assert torch.equal(flat.min(dim=1).values, torch.zeros(len(part)))
        assert torch.equal(flat.max(dim=1).values, torch.ones(len(part)))
        assert (flat.mean(dim=1) > 0.1).all()


def test_every_real_voxel_of_every_class_is_kept_by_the_default_size(hbdp_data: Path, hippocampi: ImageDataset) -> None:
    folder = hbdp_data / "msd" / "Task04_Hippocampus" / "labelsTr"
    for name, (_, label) in by_name(hippocampi).items():
        stored = np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).astype(int)  # type: ignore[attr-defined]
        assert (
            label.flatten().bincount(minlength=3)[1:].tolist() == np.bincount(stored.ravel(), minlength=3)[1:].tolist()
        )


# Written tasks.


def voxels(number: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.int16]:
    """Hounsfield units, some of them air and some of them metal."""
    return np.random.default_rng(number).integers(-1000, 1500, shape).astype(np.int16)


def classes(number: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(1000 + number).integers(0, 3, shape).astype(np.uint8)


def image_of(folder: Path, number: int) -> Path:
    return folder / "imagesTr" / f"liver_{number}.nii.gz"


def label_of(folder: Path, number: int) -> Path:
    return folder / "labelsTr" / f"liver_{number}.nii.gz"


def write_volume(path: Path, values: NDArray[Any], affine: NDArray[np.float64] = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def write_task(
    root: Path,
    image: Callable[[int], NDArray[Any]] = voxels,
    label: Callable[[int], NDArray[Any]] = classes,
    affine: NDArray[np.float64] = LPS,
    modality: Mapping[str, str] = {"0": "CT"},
) -> Path:
    """A task of ten volumes in the Decathlon's form."""
    folder = root / "msd" / TASK
    for number in range(COUNT):
        write_volume(image_of(folder, number), image(number), affine)
        write_volume(label_of(folder, number), label(number), affine)
    pairs = [
        {"image": f"./imagesTr/liver_{number}.nii.gz", "label": f"./labelsTr/liver_{number}.nii.gz"}
        for number in range(COUNT)
    ]
    write_list(
        folder, {"modality": dict(modality), "labels": LABELS, "training": pairs, "test": ["./imagesTs/x.nii.gz"]}
    )
    return folder


def write_list(folder: Path, content: Mapping[str, Any]) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def read_list(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return content


def load(root: Path, **options: Any) -> ImageDataset:
    return load_msd(root=root, **{"task": TASK, "image_size": SHAPE, **options})


def windowed(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def test_ct_is_windowed_and_turned_so_that_axes_run_right_anterior_and_superior(tmp_path: Path) -> None:
    write_task(tmp_path)
    dataset = load(tmp_path, window=(-100, 300))
    assert dataset.class_names == ("background", "liver", "cancer")
    assert dataset.spacing == (0.8, 0.8, 2.5)
    assert dataset.preparation is not None
    assert dataset.preparation.details == {
        "orientation": "RAS", "spacing": None, "intensity": {"kind": "window", "low": -100, "high": 300},
        "fit": "crop", "size": list(SHAPE),
    }  # fmt: skip
    found = by_name(dataset)
    assert set(found) == {f"liver_{number}" for number in range(COUNT)}
    for number in range(COUNT):
        image, label = found[f"liver_{number}"]
        # The stored axes run left and posterior.
        np.testing.assert_allclose(image[0], windowed(voxels(number), -100, 300)[::-1, ::-1], atol=1e-6)
        np.testing.assert_array_equal(label, classes(number)[::-1, ::-1])
    assert float(dataset.train.images.min()) == 0.0
    assert float(dataset.train.images.max()) == 1.0


def test_the_same_body_stored_along_other_axes_is_the_same_record(tmp_path: Path) -> None:
    body, organs = voxels(0), classes(0)
    folder = write_task(tmp_path, lambda number: body, lambda number: organs, RAS)
    turned = {
        # Axis i of the file is axis order[i] of the body, backwards where its sign is -1.
        1: ((0, 1, 2), (-1, 1, 1)),
        2: ((1, 0, 2), (1, 1, -1)),
        3: ((2, 0, 1), (-1, -1, -1)),
    }
    for number, (order, signs) in turned.items():
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
            affine[world, axis] = sign * RAS[world, world]
        backwards = tuple(slice(None, None, sign) for sign in signs)
        write_volume(image_of(folder, number), body.transpose(order)[backwards], affine)
        write_volume(label_of(folder, number), organs.transpose(order)[backwards], affine)
    found = by_name(load(tmp_path))
    for number in range(COUNT):
        assert torch.equal(found[f"liver_{number}"][0], found["liver_0"][0])
        assert torch.equal(found[f"liver_{number}"][1], found["liver_0"][1])
    np.testing.assert_array_equal(found["liver_0"][1], organs)


def test_float_and_scaled_integer_voxels_are_what_the_header_says(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    write_volume(image_of(folder, 1), voxels(1).astype(np.float32))
    # The header's scl_slope and scl_inter: half a Hounsfield unit a step, from 100.
    change_header(image_of(folder, 2), 112, struct.pack("<ff", 0.5, 100.0))
    found = by_name(load(tmp_path))
    for number, values in ((1, voxels(1)), (2, 0.5 * voxels(2) + 100)):
        expected = windowed(values, -150, 250)[::-1, ::-1]
        np.testing.assert_allclose(found[f"liver_{number}"][0][0], expected, atol=1e-6)


def test_crop_pads_and_cuts_around_the_centre_with_background(tmp_path: Path) -> None:
    write_task(tmp_path, affine=RAS)
    image, label = by_name(load(tmp_path, image_size=(16, 24, 16)))["liver_3"]
    assert image.shape == (1, 16, 24, 16)
    assert label.shape == (16, 24, 16)
    np.testing.assert_array_equal(label[:, 2:22], classes(3)[1:17])
    np.testing.assert_allclose(image[0, :, 2:22], windowed(voxels(3), -150, 250)[1:17], atol=1e-6)
    assert not image[:, :, :2].any()
    assert not label[:, 22:].any()


def test_scale_averages_grey_levels_and_takes_the_middle_voxels_class(tmp_path: Path) -> None:
    shape = (48, 54, 48)
    write_task(tmp_path, lambda number: voxels(number, shape), lambda number: classes(number, shape), RAS)
    dataset = load(tmp_path, image_size=(16, 18, 16), fit="scale")
    image, label = by_name(dataset)["liver_4"]
    blocks = windowed(voxels(4, shape), -150, 250).reshape(16, 3, 18, 3, 16, 3)
    np.testing.assert_allclose(image[0], blocks.mean(axis=(1, 3, 5)), atol=1e-5)
    np.testing.assert_array_equal(label, classes(4, shape)[1::3, 1::3, 1::3])
    assert dataset.spacing == pytest.approx((2.4, 2.4, 7.5), abs=1e-3)


def test_scaled_volumes_of_several_sizes_have_no_common_spacing(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    larger = (36, 40, 32)
    write_volume(image_of(folder, 0), voxels(0, larger))
    write_volume(label_of(folder, 0), classes(0, larger))
    assert load(tmp_path, fit="scale").spacing is None
    assert load(tmp_path, fit="crop").spacing == (0.8, 0.8, 2.5)


def test_resampling_gives_every_volume_the_same_voxels_in_mm(tmp_path: Path) -> None:
    def ramp(number: int) -> NDArray[np.float32]:
        x, y, z = np.meshgrid(*(np.arange(side) for side in (40, 40, 20)), indexing="ij")
        # Hounsfield units by position: 2 a mm to the right, 1 a mm to the front, 3 a mm upwards.
        return (2 * 0.8 * x + 0.8 * y + 3 * 2.5 * z).astype(np.float32)

    def half(number: int) -> NDArray[np.uint8]:
        organ = np.zeros((40, 40, 20), dtype=np.uint8)
        organ[:, 20:] = 2
        return organ

    write_task(tmp_path, ramp, half, RAS)
    dataset = load(tmp_path, spacing=(1.6, 1.6, 1.6), image_size=(16, 16, 16), window=(0, 400))
    assert dataset.spacing == (1.6, 1.6, 1.6)
    image, label = by_name(dataset)["liver_5"]
    inner = 400 * image[0]
    for axis, step in enumerate((2 * 1.6, 1.6, 3 * 1.6)):
        np.testing.assert_allclose(np.diff(inner.numpy(), axis=axis), step, atol=0.02)
    assert label.unique().tolist() == [0, 2]
    # The organ's edge is where its grey levels are.
    edge = int((label[8, :, 8] == 0).sum())
    assert abs(edge - 8) <= 1


def test_other_modalities_are_scaled_by_their_own_percentiles_channel_by_channel(tmp_path: Path) -> None:
    def two(number: int) -> NDArray[np.float32]:
        drawn = np.random.default_rng(number).gamma(2, 100, (*SHAPE, 2)).astype(np.float32)
        drawn[..., 1] = drawn[..., 1] * 7 + 300
        drawn[0, 0, 0] = 1.7e6
        return drawn

    write_task(tmp_path, two, affine=RAS, modality={"0": "T2", "1": "ADC"})
    dataset = load(tmp_path)
    assert dataset.preparation is not None
    assert dataset.preparation.details["intensity"] == {"kind": "percentiles", "low": 0.5, "high": 99.5}
    found = by_name(dataset)
    for number in range(COUNT):
        image, _ = found[f"liver_{number}"]
        assert image.shape == (2, *SHAPE)
        for channel in (0, 1):
            stored = two(number)[..., channel].astype(np.float64)
            low, high = np.percentile(stored, [0.5, 99.5])
            np.testing.assert_allclose(image[channel], windowed(stored, low, high), atol=1e-4)


def test_a_volumes_grey_levels_do_not_depend_on_other_volumes(tmp_path: Path) -> None:
    folder = write_task(tmp_path, modality={"0": "MRI"})
    before = by_name(load(tmp_path))
    write_volume(image_of(folder, 6), voxels(60).astype(np.float32) ** 2)
    write_volume(label_of(folder, 6), np.zeros(SHAPE, dtype=np.uint8))
    after = by_name(load(tmp_path))
    for name in before:
        assert torch.equal(before[name][0], after[name][0]) == (name != "liver_6")


@pytest.mark.filterwarnings("ignore:Divide by zero")
def test_a_volume_of_almost_one_grey_level_stays_between_zero_and_one(tmp_path: Path) -> None:
    def flat(number: int) -> NDArray[np.int16]:
        values = np.full(SHAPE, 700, dtype=np.int16)
        if number % 2:
            values[0, 0, :3] = (30_000, 0, -30_000)
        return values

    write_task(tmp_path, flat, affine=RAS, modality={"0": "MRI"})
    for name, (image, _) in by_name(load(tmp_path)).items():
        assert image.unique().tolist() == ([0.0, 1.0] if int(name[-1]) % 2 else [0.0])


def remove(path: Path) -> Path:
    path.unlink()
    return path


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-500])
    return path


def overwrite(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def change_header(path: Path, offset: int, content: bytes) -> Path:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(content)] = content
    return overwrite(path, gzip.compress(bytes(raw)))


def with_voxel(values: NDArray[Any], value: float) -> NDArray[np.float32]:
    changed = values.astype(np.float32)
    changed[3, 4, 5] = value
    return changed


def list_twice(folder: Path) -> Path:
    content = read_list(folder)
    content["training"].append(content["training"][2])
    write_list(folder, content)
    return folder / "./imagesTr/liver_2.nii.gz"


def lose_label(folder: Path) -> Path:
    remove(label_of(folder, 2))
    return image_of(folder, 2)


def add_unlisted(folder: Path) -> Path:
    write_volume(label_of(folder, 77), classes(77))
    return write_volume(image_of(folder, 77), voxels(77))


def colours(path: Path) -> Path:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return write_volume(path, np.zeros(SHAPE, dtype=kind))


BAD: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "volume without label": (
        lambda folder: write_volume(image_of(folder, 77), voxels(77)),
        "is a volume without label: it is not listed",
        0,
    ),
    "label without volume": (
        lambda folder: write_volume(label_of(folder, 77), classes(77)),
        "is a label without volume: it is not listed",
        0,
    ),
    "unlisted": (add_unlisted, "is left out by dataset.json", 0),
    "listed twice": (list_twice, "is listed twice", 0),
    "listed volume missing": (lambda folder: remove(image_of(folder, 2)), "there is no such file, though liver_2", 1),
    "listed label missing": (lose_label, "has no label: there is no file .*labelsTr/liver_2", 1),
    "truncated volume": (lambda folder: truncate(image_of(folder, 2)), "cannot be read", 1),
    "truncated label": (lambda folder: truncate(label_of(folder, 2)), "cannot be read", 1),
    "empty volume": (lambda folder: overwrite(image_of(folder, 2), b""), "cannot be read", 1),
    "no gzip": (lambda folder: overwrite(image_of(folder, 2), b"no volume" * 99), "cannot be read", 1),
    "unknown kind of voxel": (lambda folder: change_header(image_of(folder, 2), 70, b"\x69\x69"), "cannot be read", 1),
    "impossible size": (
        lambda folder: change_header(image_of(folder, 2), 42, b"\xff\x7f\xff\x7f\xff\x7f"),
        "cannot be read",
        1,
    ),
    "colours": (lambda folder: colours(image_of(folder, 2)), "cannot be read", 1),
    "label out of range": (
        lambda folder: write_volume(label_of(folder, 2), with_voxel(classes(2), 3)),
        "holds the label 3, but the classes are 0 to 2",
        1,
    ),
    "negative label": (lambda folder: write_volume(label_of(folder, 2), with_voxel(classes(2), -1)), "label -1", 1),
    "label between": (lambda folder: write_volume(label_of(folder, 2), with_voxel(classes(2), 0.5)), "label 0.5", 1),
    "label not a number": (
        lambda folder: write_volume(label_of(folder, 2), with_voxel(classes(2), np.nan)),
        "holds the label nan",
        1,
    ),
    "another shape": (
        lambda folder: write_volume(label_of(folder, 2), classes(2, (18, 20, 15))),
        r"has \(18, 20, 15\) voxels, but its image liver_2.nii.gz has \(18, 20, 16\)",
        1,
    ),
    "turned label": (
        lambda folder: write_volume(label_of(folder, 2), classes(2), RAS),
        "has voxels of another size or direction than its image",
        1,
    ),
    "too many modalities": (
        lambda folder: write_volume(image_of(folder, 2), voxels(2, (*SHAPE, 2))),
        "has 2 modalities, but dataset.json names 1",
        1,
    ),
    "grey level not a number": (
        lambda folder: write_volume(image_of(folder, 2), with_voxel(voxels(2), np.nan)),
        "has a grey level that is not a finite number",
        1,
    ),
    "infinite grey level": (
        lambda folder: write_volume(image_of(folder, 2), with_voxel(voxels(2), np.inf)),
        "not a finite number",
        1,
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageDataset]:
    """A task without a fault, to be copied, and what is read from it."""
    root = tmp_path_factory.mktemp("whole")
    write_task(root)
    return root, load(root)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_an_error_with_its_path_or_left_out(
    case: str, whole: tuple[Path, ImageDataset], tmp_path: Path
) -> None:
    harm, message, lost = BAD[case]
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    path = harm(tmp_path / "msd" / TASK)
    with pytest.raises(DataFileError, match=message) as caught:
        load(tmp_path)
    assert caught.value.path == path
    dataset = load(tmp_path, on_bad_record="skip")
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith(f"{path}: ")
    assert len(by_name(dataset)) == COUNT - lost
    assert ("liver_2" in by_name(dataset)) == (lost == 0)
    for part, before in zip(splits(dataset), splits(whole[1]), strict=True):
        # A longer list is another division; what cannot be read moves nobody.
        assert case == "listed twice" or set(part.names.tolist()) <= set(before.names.tolist())  # type: ignore[union-attr]


def test_hidden_twins_and_other_files_are_no_volumes(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    (folder / "imagesTr" / "._liver_3.nii.gz").write_bytes(b"Mac OS X")
    (folder / "labelsTr" / "notes.txt").write_text("mine")
    assert len(by_name(load(tmp_path))) == COUNT


def test_the_division_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    write_task(tmp_path)
    first, again, other = (
        load(tmp_path, split_seed=seed, fit=fit) for seed, fit in ((0, "crop"), (0, "scale"), (4, "crop"))
    )
    assert [len(part) for part in splits(first)] == [7, 1, 2]
    assert first.test.names.tolist() == again.test.names.tolist()  # type: ignore[union-attr]
    assert first.test.names.tolist() != other.test.names.tolist()  # type: ignore[union-attr]


def test_a_split_without_a_volume_is_an_error_even_under_skip(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    for number in range(COUNT):
        truncate(image_of(folder, number))
    with pytest.raises(DataFileError, match="a split without a single volume"):
        load(tmp_path, on_bad_record="skip")


def test_an_unknown_task_is_refused_with_the_ones_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"no such file; set data\.task .* HBDP_DATA to the folder that holds msd"):
        load(tmp_path)
    write_task(tmp_path)
    another = tmp_path / "msd" / "Task09_Spleen"
    another.mkdir()
    write_list(another, {})
    with pytest.raises(DataFileError, match="there are: Task03_Liver, Task09_Spleen") as caught:
        load(tmp_path, task="Task3_Liver")
    assert caught.value.path == tmp_path / "msd" / "Task3_Liver" / "dataset.json"


GOOD: dict[str, Any] = {"modality": {"0": "CT"}, "labels": LABELS, "training": [{"image": "a", "label": "b"}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not the dataset.json of a Decathlon task"),
        ("[]", "is not the dataset.json of a Decathlon task"),
        (json.dumps({key: GOOD[key] for key in ("modality", "training")}), "Decathlon task .*labels"),
        (json.dumps({**GOOD, "modality": ["CT"]}), "Decathlon task"),
        (json.dumps({**GOOD, "training": ["./imagesTr/liver_0.nii.gz"]}), "Decathlon task"),
        (json.dumps({**GOOD, "labels": {"background": 0, "liver": 1}}), "Decathlon task"),
        (json.dumps({**GOOD, "labels": {"0": "background", "2": "cancer"}}), r"its labels are \[0, 2\]"),
        (json.dumps({**GOOD, "labels": {"0": "background"}}), r"its labels are \[0\]"),
        (json.dumps({**GOOD, "training": []}), "lists no volume with a label"),
    ],
)
def test_a_broken_list_is_refused_by_its_path_even_under_skip(content: str, message: str, tmp_path: Path) -> None:
    path = write_task(tmp_path) / "dataset.json"
    path.write_text(content)
    with pytest.raises(DataFileError, match=message) as caught:
        load(tmp_path, on_bad_record="skip")
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 64}, r"^data\.image_size: must be three numbers, as in \[40,56,40\], got 64"),
        ({"image_size": [32, 32]}, r"^data\.image_size: must be three numbers"),
        ({"image_size": [32, 32, 8]}, r"^data\.image_size: must be an integer of at least 16, got 8"),
        ({"fit": "stretch"}, r"^data\.fit: 'stretch' is not known; choose one of: crop, scale"),
        ({"spacing": 1.0}, r"^data\.spacing: must be three numbers in mm or null"),
        ({"spacing": [1, 1, 0]}, r"^data\.spacing: must be a number above 0"),
        ({"window": [250, -150]}, r"^data\.window: must be two Hounsfield units, the lower one first"),
        ({"window": [-150, float("inf")]}, r"^data\.window"),
        ({"window": [float("nan"), 250]}, r"^data\.window"),
        ({"val_fraction": 1.5}, r"^data\.val_fraction"),
        ({"on_bad_record": "ignore"}, r"^data\.on_bad_record: 'ignore' is not known"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        load(tmp_path, **options)
