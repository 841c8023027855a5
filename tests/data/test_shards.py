"""Shards: what is written is read back bit for bit, and whatever is not a shard is refused by its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hbdp_fed.data.contract import Records
from hbdp_fed.data.shards import read_shard, write_shard
from hbdp_fed.errors import DataFileError


def make_records(masks: bool = True) -> Records:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((5, 3, 6, 4), generator=generator)
    return Records(
        images=images,
        labels=torch.tensor([0, 1, 1, 0, 2]),
        masks=(images[:, :1] > 0.5) if masks else None,
    )


@pytest.mark.parametrize("masks", [True, False])
def test_reads_back_what_was_written(tmp_path: Path, masks: bool) -> None:
    path, records = tmp_path / "site.safetensors", make_records(masks)
    write_shard(path, records)
    back = read_shard(path)
    assert torch.equal(back.images, records.images)
    assert torch.equal(back.labels, records.labels)
    if masks:
        assert back.masks is not None
        assert records.masks is not None
        assert torch.equal(back.masks, records.masks)
    else:
        assert back.masks is None


SEGMENTED = torch.tensor([0, 2, 1, 0]).view(1, 4, 1, 1).expand(5, 4, 6, 8)

FORMS: dict[str, Records] = {
    "bytes": Records(
        images=torch.arange(5 * 3 * 6 * 4, dtype=torch.int64).to(torch.uint8).view(5, 3, 6, 4),
        labels=torch.tensor([0, 1, 1, 0, 2]),
    ),
    "several findings": Records(
        images=torch.full((5, 1, 6, 4), 0.1), labels=torch.tensor([[0, 1], [1, 1]] * 2 + [[0, 0]])
    ),
    "outlines as labels": Records(images=torch.full((5, 1, 4, 6), 255, dtype=torch.uint8), labels=SEGMENTED[..., 0]),
    "volumes": Records(images=torch.rand((5, 2, 4, 6, 8)), labels=torch.tensor([4, 3, 2, 1, 0])),
    "segmented volumes": Records(images=torch.rand((5, 1, 4, 6, 8)), labels=SEGMENTED, masks=SEGMENTED[:, None] > 0),
    "nothing": Records(
        images=torch.zeros((0, 1, 4, 6, 8), dtype=torch.uint8), labels=torch.zeros((0, 4, 6, 8), dtype=torch.int64)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_records_is_read_back_bit_for_bit(tmp_path: Path, form: str) -> None:
    path, records = tmp_path / "site.safetensors", FORMS[form]
    write_shard(path, records)
    back = read_shard(path)
    for written, read in ((records.images, back.images), (records.labels, back.labels), (records.masks, back.masks)):
        if written is None:
            assert read is None
        else:
            assert read is not None
            assert read.dtype == written.dtype
            assert torch.equal(read, written)


def test_whose_the_records_are_is_kept_as_numbers(tmp_path: Path) -> None:
    path, groups = tmp_path / "site.safetensors", torch.tensor([7, 7, -3, 40, -3])
    write_shard(path, replace(make_records(), groups=groups))
    back = read_shard(path).groups
    assert back is not None
    assert torch.equal(back, groups)
    assert back.dtype == torch.int64


def test_who_the_patients_are_stays_behind(tmp_path: Path) -> None:
    path, names = tmp_path / "site.safetensors", np.asarray([f"SECRET_{number}" for number in range(5)])
    records = replace(make_records(), names=names, attributes={"sex": names, "age": names})
    write_shard(path, records)
    back = read_shard(path)
    assert back.names is None
    assert not back.attributes
    write_shard(tmp_path / "plain.safetensors", make_records())
    assert path.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()


def test_views_and_permuted_tensors_can_be_written(tmp_path: Path) -> None:
    path, records = tmp_path / "site.safetensors", make_records()
    view = Records(images=records.images.transpose(2, 3), labels=records.labels[:], masks=None)
    write_shard(path, view)
    assert torch.equal(read_shard(path).images, records.images.transpose(2, 3))


def test_an_empty_hospital_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_shard(path, make_records().select(torch.tensor([], dtype=torch.int64)))
    assert read_shard(path).images.shape == (0, 3, 6, 4)


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_shard(path, make_records())
    before = read_shard(path)
    write_shard(path, make_records().select(torch.tensor([1])))
    assert len(read_shard(path)) == 1
    # Who had opened the old shard still sees all of it.
    assert torch.equal(before.images, make_records().images)
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.safetensors"]


def test_changing_what_was_read_does_not_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_shard(path, make_records())
    read_shard(path).images.zero_()
    assert torch.equal(read_shard(path).images, make_records().images)


def test_a_missing_shard_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such file") as caught:
        read_shard(tmp_path / "absent.safetensors")
    assert caught.value.path == tmp_path / "absent.safetensors"


@pytest.mark.parametrize("kept", [0, 4, 40, 300])
def test_a_truncated_shard_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "site.safetensors"
    write_shard(path, make_records())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataFileError, match="cannot be read") as caught:
        read_shard(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "holds images"),
        ({"weights": torch.zeros(1)}, "holds images, labels, weights"),
        ({"images": torch.zeros(5, 3, 6)}, "images is"),
        ({"images": torch.zeros(5, 3, 6, 4, dtype=torch.float64)}, "images is torch.float64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels is torch.int64 \(4,\), not int64 \(5,\)"),
        ({"images": torch.zeros(5, 3, 6, 4, dtype=torch.int64)}, "not float32 or uint8"),
        ({"images": torch.zeros(5, 3, 2, 2, 6, 4)}, "images is"),
        ({"images": torch.zeros(4, 3, 6, 4)}, "labels is"),
        ({"labels": torch.zeros(5)}, "labels is torch.float32"),
        ({"labels": torch.zeros((), dtype=torch.int64)}, r"labels is torch.int64 \(\)"),
        ({"labels": torch.zeros(5, 4, 6, dtype=torch.int64)}, r"not int64 \(5,\), \(5, K\) or \(5, 6, 4\)"),
        ({"labels": torch.zeros(5, 1, 6, 4, dtype=torch.int64)}, "labels is"),
        ({"masks": torch.zeros(5, 1, 6, 6, dtype=torch.bool)}, "masks is"),
        ({"masks": torch.zeros(5, 1, 6, 4)}, "masks is torch.float32"),
        ({"masks": torch.zeros(5, 6, 4, dtype=torch.bool)}, "masks is"),
        ({"groups": torch.zeros(4, dtype=torch.int64)}, r"groups is torch.int64 \(4,\), not int64 \(5,\)"),
        ({"groups": torch.zeros(5)}, "groups is torch.float32"),
    ],
)
def test_other_tensors_are_not_a_shard(tmp_path: Path, changes: dict[str, Tensor | None], message: str) -> None:
    path, records = tmp_path / "site.safetensors", make_records()
    tensors = {"images": records.images, "labels": records.labels} | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(DataFileError, match=message):
        read_shard(path)


def test_a_folder_that_does_not_exist_is_refused_on_writing(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be written"):
        write_shard(tmp_path / "absent" / "site.safetensors", make_records())
