"""Augmentations against a loop over records, and the order of views."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.errors import SettingError
from hbdp_fed.training import AUGMENTATIONS, views

SHAPES = [(17, 24), (16, 9, 24)]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(spatial: tuple[int, ...], count: int = 12, channels: int = 2) -> tuple[Tensor, Tensor]:
    """Images, and labels of their pixels that can be told from the images: ten times the first channel."""
    images = torch.rand(count, channels, *spatial, generator=stream(3))
    return images, (images[:, 0] * 10).long()


def translated(values: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """One record (..., *spatial) moved by ``offsets``: padded with its edge by PyTorch, rolled, and cut out again."""
    reach = 4
    dims = len(offsets)
    padded = functional.pad(values[None].double(), [reach] * 2 * dims, mode="replicate")[0]
    axes = tuple(range(-dims, 0))
    rolled = torch.roll(padded, offsets, dims=axes)
    return rolled[(..., *[slice(reach, -reach)] * dims)].to(values.dtype)


def possible_shifts(spatial: tuple[int, ...]) -> list[tuple[int, ...]]:
    most = [side // 8 for side in spatial]
    return [tuple(o.tolist()) for o in torch.cartesian_prod(*[torch.arange(-m, m + 1) for m in most])]


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_flip_mirrors_some_records_whole_and_leaves_the_others(spatial: tuple[int, ...]) -> None:
    images, labels = records(spatial)
    found, moved = views(images, labels, multiplicity=1, augmentation="flip", generator=stream())
    mirrored = []
    for i in range(len(images)):
        flipped = torch.equal(found[i], images[i].flip(-1))
        assert flipped or torch.equal(found[i], images[i])
        assert torch.equal(moved[i], labels[i].flip(-1) if flipped else labels[i])
        mirrored.append(flipped)
    assert 0 < sum(mirrored) < len(mirrored)


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_shift_is_a_translation_with_the_edge_repeated(spatial: tuple[int, ...]) -> None:
    images, labels = records(spatial)
    found, moved = views(images, labels, multiplicity=1, augmentation="shift", generator=stream())
    taken = set()
    for i in range(len(images)):
        (offsets,) = [o for o in possible_shifts(spatial) if torch.equal(found[i], translated(images[i], o))]
        assert torch.equal(moved[i], translated(labels[i][None], offsets)[0])
        taken.add(offsets)
    assert len(taken) > len(images) / 2


def test_a_shift_reaches_an_eighth_of_each_side_and_no_further() -> None:
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(3000, 1, 16, 32)
    found, _ = views(ramp, torch.zeros(3000), multiplicity=1, augmentation="shift", generator=stream())
    offsets = (16 - found[:, 0, 8, 16]).long()
    assert (int(offsets.min()), int(offsets.max())) == (-4, 4)
    counts = torch.bincount(offsets + 4).double()
    assert float(((counts - 3000 / 9) ** 2 / (3000 / 9)).sum()) < 30


@pytest.mark.parametrize("spatial", [(4, 6), (3, 4, 5)])
def test_flip_all_mirrors_along_every_axis_by_itself(spatial: tuple[int, ...]) -> None:
    images = torch.rand(400, 1, *spatial, generator=stream())
    labels = (images[:, 0] * 3).long()
    found, moved = views(images, labels, multiplicity=1, augmentation="flip_all", generator=stream())
    axes = range(-len(spatial), 0)
    combinations = [chosen for n in range(len(spatial) + 1) for chosen in itertools.combinations(axes, n)]
    counts = dict.fromkeys(combinations, 0)
    for image, label, view, turned in zip(images, labels, found, moved, strict=True):
        (chosen,) = [c for c in combinations if torch.equal(view, image.flip(c) if c else image)]
        assert torch.equal(turned, label.flip(chosen) if chosen else label)
        counts[chosen] += 1
    expected = len(images) / len(combinations)
    # Five standard deviations of a binomial count.
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("augmentation", ["flip", "shift", "flip_all_shift"])
def test_labels_that_are_no_pixels_stay(augmentation: str) -> None:
    images, labels = torch.rand(50, 1, 8, 8, generator=stream()), torch.randint(2, (50, 14), generator=stream())
    for kept in (labels, labels[:, 0]):
        _, moved = views(images, kept, multiplicity=1, augmentation=augmentation, generator=stream())
        assert torch.equal(moved, kept)


def test_flip_shift_does_both() -> None:
    images, labels = records((17, 24))
    found, moved = views(images, labels, multiplicity=1, augmentation="flip_shift", generator=stream())
    mirrored = []
    for i in range(len(images)):
        matches = [
            (flip, offsets)
            for flip in (False, True)
            for offsets in possible_shifts((17, 24))
            if torch.equal(found[i], translated(images[i].flip(-1) if flip else images[i], offsets))
        ]
        ((flip, offsets),) = matches
        assert torch.equal(moved[i], translated((labels[i].flip(-1) if flip else labels[i])[None], offsets)[0])
        mirrored.append(flip)
    assert 0 < sum(mirrored) < len(mirrored)


def test_a_flip_comes_about_half_the_time() -> None:
    images = torch.tensor([0.0, 1.0]).expand(2000, 1, 1, 2)
    found, _ = views(images, torch.zeros(2000), multiplicity=1, augmentation="flip", generator=stream())
    assert abs(float(found[:, 0, 0, 0].mean()) - 0.5) < 0.05


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("spatial", SHAPES)
def test_views_of_a_record_lie_together_and_keep_its_label(name: str, spatial: tuple[int, ...]) -> None:
    images = torch.arange(5.0).view(5, *[1] * (1 + len(spatial))).expand(5, 2, *spatial)
    found, labels = views(images, torch.arange(5), multiplicity=3, augmentation=name, generator=stream())
    assert found.shape == (15, 2, *spatial)
    assert found.flatten(start_dim=1)[:, 0].tolist() == [float(r) for r in range(5) for _ in range(3)]
    assert labels.tolist() == [r for r in range(5) for _ in range(3)]


def test_views_of_a_record_differ() -> None:
    images, labels = records((16, 16), count=4)
    found, _ = views(images, labels, multiplicity=6, augmentation="shift", generator=stream())
    assert all(len(torch.unique(own, dim=0)) > 1 for own in found.view(4, 6, -1))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_generator_gives_the_same_views_and_inputs_stay_as_they_are(name: str) -> None:
    images, labels = records((16, 16))
    before = images.clone(), labels.clone()
    first, again = (views(images, labels, multiplicity=2, augmentation=name, generator=stream(4)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("spatial", SHAPES)
def test_an_empty_batch_has_no_views(name: str, spatial: tuple[int, ...]) -> None:
    images, labels = records(spatial)
    found, moved = views(images[:0], labels[:0], multiplicity=4, augmentation=name, generator=stream())
    assert found.shape == (0, 2, *spatial)
    assert moved.shape == (0, *spatial)


def test_an_unknown_augmentation_names_the_setting() -> None:
    with pytest.raises(
        SettingError,
        match=r"training\.augmentation: 'cutout' is not known; .*: flip, flip_all, flip_all_shift, flip_shift, none",
    ):
        views(torch.zeros(1, 1, 8, 8), torch.zeros(1), multiplicity=1, augmentation="cutout", generator=stream())
