"""Reads the 2D and 3D sets of MedMNIST v2 from the files their authors publish.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10, 41 (2023). The larger sizes are those of MedMNIST+ (2024). Labels mean what the authors' own table
says (``medmnist/info.py`` in https://github.com/MedMNIST/MedMNIST).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.contract import ImageDataset, Preparation, Records
from hbdp_fed.errors import DataFileError, SettingError, unknown_choice

SIZES: Mapping[int, tuple[int, ...]] = {2: (28, 64, 128, 224), 3: (28, 64)}
"""The published sides in pixels (voxels), by the number of spatial dimensions. The smallest has no ending."""

_ADVICE = "download the set again from https://medmnist.com"


@dataclass(frozen=True)
class MedMnistSet:
    """What one set's labels mean.

    Attributes:
        task: The contract's word for the task.
        class_names: One name a class, in the order in which this system counts them; in a binary set class 1 is the
            finding.
        dimensions: Spatial dimensions of an image, 2 or 3.
        finding: Of a binary set: the label in the file that stands for the finding.
        licence: As the authors state it.
    """

    task: str
    class_names: tuple[str, ...]
    dimensions: int = 2
    finding: int = 1
    licence: str = "CC BY 4.0"

    @property
    def largest_label(self) -> int:
        """The largest label that a file may hold; the smallest is 0."""
        return len(self.class_names) - 1 if self.task == "multiclass" else 1


_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

MEDMNIST_SETS: Mapping[str, MedMnistSet] = {
    "pathmnist": MedMnistSet(
        "multiclass",
        (
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
            "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
        ),
    ),
    "chestmnist": MedMnistSet(
        "multilabel",
        (
            "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
            "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
        ),
    ),
    "dermamnist": MedMnistSet(
        "multiclass",
        (
            "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
            "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
        ),
        licence="CC BY-NC 4.0",
    ),
    "octmnist": MedMnistSet(
        "multiclass", ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")
    ),
    "pneumoniamnist": MedMnistSet("binary", ("normal", "pneumonia")),
    # The authors' task is ordinal regression: grades of diabetic retinopathy. Here a grade is a class like any other.
    "retinamnist": MedMnistSet("multiclass", ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4")),
    # The authors count malignant as 0 and "normal, benign" as 1.
    "breastmnist": MedMnistSet("binary", ("normal or benign", "malignant"), finding=0),
    "bloodmnist": MedMnistSet(
        "multiclass",
        (
            "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte", "neutrophil",
            "platelet",
        ),
    ),
    "tissuemnist": MedMnistSet(
        "multiclass",
        (
            "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
            "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
    "organamnist": MedMnistSet("multiclass", _ORGANS),
    "organcmnist": MedMnistSet("multiclass", _ORGANS),
    "organsmnist": MedMnistSet("multiclass", _ORGANS),
    # The same organs as in 2D, in another order.
    "organmnist3d": MedMnistSet(
        "multiclass",
        (
            "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
            "lung-left", "spleen", "pancreas",
        ),
        dimensions=3,
    ),
    "nodulemnist3d": MedMnistSet("binary", ("benign", "malignant"), dimensions=3),
    "adrenalmnist3d": MedMnistSet("binary", ("normal", "hyperplasia"), dimensions=3),
    "fracturemnist3d": MedMnistSet(
        "multiclass",
        ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
        dimensions=3,
    ),
    "vesselmnist3d": MedMnistSet("binary", ("vessel", "aneurysm"), dimensions=3),
    # Neither kind of synapse is a finding; the label 1 stands for it.
    "synapsemnist3d": MedMnistSet("binary", ("inhibitory synapse", "excitatory synapse"), dimensions=3),
}  # fmt: skip
"""The 18 sets by their official names."""


def load_any_medmnist(
    *, root: Path, set: str = "pneumoniamnist", size: int = 28, on_bad_record: str = "stop"
) -> ImageDataset:
    """Read the set that an option names; everything else is as in :func:`load_medmnist`."""
    return load_medmnist(set, root=root, size=size, on_bad_record=on_bad_record)


def load_medmnist(name: str, *, root: Path, size: int = 28, on_bad_record: str = "stop") -> ImageDataset:
    """Read ``root/medmnist/<name>.npz``, or ``<name>_<size>.npz`` for the larger sizes.

    The splits are the official ones, in the file's order. There are no outlines, and no patients are known.

    Args:
        name: A key of ``MEDMNIST_SETS``.
        root: The folder that holds the folder ``medmnist``.
        size: The side of the images in pixels (voxels), one of :data:`SIZES`.
        on_bad_record: ``stop`` or ``skip``: what becomes of a record whose label is none of the set's.

    Returns:
        uint8 images: grey (N, 1, H, W), RGB (N, 3, H, W) or, of a 3D set, (N, 1, D, H, W). In a binary set class 1 is
        the finding, whatever number it has in the file.

    Raises:
        SettingError: if no such set is known, or it is not published at that size.
        DataFileError: if the file is missing, unreadable or does not have MedMNIST's layout, or a record is bad under
            ``error``.
    """
    [path] = medmnist_files(name, root=root, size=size)
    layout = MEDMNIST_SETS[name]
    bad = BadRecords(on_bad_record)
    if not root.is_dir():
        raise DataFileError(root, "there is no such folder; set HBDP_DATA to the folder that holds the data sets")
    if not path.is_file():
        raise DataFileError(path, f"there is no such file; {_ADVICE} and put it there")
    arrays = _read_arrays(path)
    splits = {split: _split_records(path, arrays, split, layout, bad) for split in ("train", "val", "test")}
    shapes = {tuple(records.images.shape[1:]) for records in splits.values()}
    if len(shapes) > 1:
        raise DataFileError(path, f"its splits have images of different shapes: {sorted(shapes)}; {_ADVICE}")
    return ImageDataset(
        name=name,
        task=layout.task,
        class_names=layout.class_names,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        skipped=tuple(bad.skipped),
        preparation=Preparation(kind="array", words="pixels of 8 bits, of the set's own size, are divided by 255"),
        licence=layout.licence,
    )


def any_medmnist_files(*, root: Path, set: str, size: int, **_: Any) -> list[Path]:
    """The file on which :func:`load_any_medmnist` depends."""
    return medmnist_files(set, root=root, size=size)


def medmnist_files(name: str, *, root: Path, size: int, **_: Any) -> list[Path]:
    """The file on which :func:`load_medmnist` depends.

    Raises:
        SettingError: if no such set is known, or it is not published at that size.
    """
    if name not in MEDMNIST_SETS:
        raise unknown_choice("data.set", name, MEDMNIST_SETS)
    sizes = SIZES[MEDMNIST_SETS[name].dimensions]
    if size not in sizes:
        raise SettingError("data.size", f"{name} is published at {', '.join(map(str, sizes))} pixels, got {size!r}")
    return [root / "medmnist" / (f"{name}.npz" if size == sizes[0] else f"{name}_{size}.npz")]


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The six arrays of MedMNIST's layout: images of uint8, labels of some integer type."""
    names = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")]
    try:
        # Never unpickle: a data file must not be able to run code.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataFileError(path, f"is a single array, not an npz archive; {_ADVICE}")
        with archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataFileError(path, f"has no array {', '.join(missing)}; {_ADVICE}")
            arrays = {name: archive[name] for name in names}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(path, f"cannot be read ({error}); {_ADVICE}") from error
    for name, array in arrays.items():
        if name.endswith("_images") and array.dtype != np.uint8:
            raise DataFileError(path, f"{name} has the type {array.dtype}, not uint8; {_ADVICE}")
        if name.endswith("_labels") and array.dtype.kind not in "iu":
            raise DataFileError(path, f"{name} has the type {array.dtype}, not integers; {_ADVICE}")
    return arrays


def _split_records(
    path: Path, arrays: Mapping[str, NDArray[Any]], split: str, layout: MedMnistSet, bad: BadRecords
) -> Records:
    images = _channels_first(path, f"{split}_images", arrays[f"{split}_images"], layout.dimensions)
    labels = _label_rows(path, split, arrays, layout)
    wrong = (labels < 0) | (labels > layout.largest_label)
    is_usable = ~wrong.any(axis=1)
    for record in np.flatnonzero(~is_usable):
        value = labels[record][wrong[record]][0]
        known = f"the classes are 0 to {layout.largest_label}"
        bad.refuse(path, f"{split}_labels holds {value} at position {record}, but {known}")
    if not is_usable.any():
        raise DataFileError(path, f"{split}_labels has no label that can be used; {_ADVICE}")
    if not is_usable.all():
        images, labels = images[is_usable], labels[is_usable]
    if layout.task == "binary":
        labels = labels == layout.finding
    if layout.task != "multilabel":
        labels = labels[:, 0]
    return Records(
        images=torch.from_numpy(np.ascontiguousarray(images)), labels=torch.from_numpy(labels.astype(np.int64))
    )


def _channels_first(path: Path, name: str, images: NDArray[np.uint8], dimensions: int) -> NDArray[np.uint8]:
    """Images as (N, C, *spatial)."""
    is_grey = images.ndim == 1 + dimensions
    is_rgb = dimensions == 2 and images.ndim == 4 and images.shape[-1] == 3
    if not (is_grey or is_rgb) or 0 in images.shape:
        known = "(N, H, W) or (N, H, W, 3)" if dimensions == 2 else "(N, D, H, W)"
        raise DataFileError(path, f"{name} has the shape {images.shape}, not {known} with N > 0; {_ADVICE}")
    return images[:, None] if is_grey else np.moveaxis(images, -1, 1)


def _label_rows(path: Path, split: str, arrays: Mapping[str, NDArray[Any]], layout: MedMnistSet) -> NDArray[Any]:
    """Labels as (N, K) of a multilabel set and as (N, 1) of any other."""
    labels, count = arrays[f"{split}_labels"], len(arrays[f"{split}_images"])
    width = len(layout.class_names) if layout.task == "multilabel" else 1
    if labels.shape != (count, width) and (width > 1 or labels.shape != (count,)):
        raise DataFileError(
            path,
            f"{split}_labels has the shape {labels.shape}, not ({count}, {width}) like {split}_images; {_ADVICE}",
        )
    return labels.reshape(count, width)
