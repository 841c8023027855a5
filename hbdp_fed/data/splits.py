"""Divides what has no official splits, without ever dividing a patient (or lesion), and draws smaller sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator


@dataclass(frozen=True)
class SplitSettings:
    """How a data set is divided. A run's seed has no part in it, so that all seeds are judged on the same records.

    Attributes:
        val_fraction: The share of groups in the validation split, in (0, 1).
        test_fraction: The share of groups in the test split, in (0, 1).
        seed: The division's own seed, at least 0.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("data.val_fraction", self.val_fraction, low=0.0, high=1.0, open_ends=True)
        check_number("data.test_fraction", self.test_fraction, low=0.0, high=1.0, open_ends=True)
        check_integer("data.split_seed", self.seed, minimum=0)
        if self.val_fraction + self.test_fraction >= 1:
            raise SettingError("data.val_fraction", "val_fraction and data.test_fraction leave nothing to train on")


@dataclass(frozen=True)
class Split:
    """Which records are in which split: int64 indices, ascending; together all records, each once."""

    train: Tensor
    val: Tensor
    test: Tensor


def split_by_group(groups: Tensor, strata: Tensor, settings: SplitSettings) -> Split:
    """Divide records so that each group is whole in one split, and every stratum is spread evenly.

    Groups are put in order of their stratum, at random within it, and taken at even distances, first for the test
    split and then, of what is left, for the validation split. Each split gets its share of all groups up to one. Of
    the groups of each stratum, the test split gets its share up to one, the validation split up to two: one of its own
    and a fraction of the test split's.

    Args:
        groups: int64 (N,), equal for records that belong together.
        strata: int64 (N,), what is to be spread evenly, as a rule the class. A group counts for its first record's.
        settings: The shares and the seed.

    Raises:
        SettingError: if there are so few groups that a split would be empty.
    """
    first, member = first_and_member(groups)
    order = _by_stratum(strata[first].numpy(), settings.seed, "split")
    position = np.arange(len(first))
    held_out = _taken(position, settings.test_fraction)
    rest = position[~held_out]
    chosen = _taken(np.arange(len(rest)), settings.val_fraction / (1 - settings.test_fraction))
    split_of = np.zeros(len(first), dtype=np.int64)
    split_of[order[held_out]] = 2
    split_of[order[rest[chosen]]] = 1
    train, val, test = (torch.from_numpy(np.flatnonzero(split_of[member] == split)) for split in range(3))
    if not (len(train) and len(val) and len(test)):
        raise SettingError(
            "data.test_fraction",
            f"{len(first)} groups of records are too few for shares of {settings.val_fraction:g} and "
            f"{settings.test_fraction:g}: a split would be empty",
        )
    return Split(train=train, val=val, test=test)


def split_train_val(
    groups: Tensor, strata: Tensor, *, val_fraction: float, seed: int, key: str = "data.val_fraction"
) -> tuple[Tensor, Tensor]:
    """Divide the records of an official training split, as :func:`split_by_group` does; the test split is official too.

    Args:
        groups: int64 (N,), equal for records that belong together.
        strata: int64 (N,), what is to be spread evenly. A group counts for its first record's.
        val_fraction: The share of groups in the validation split, in (0, 1): of all and of each stratum, up to one.
        seed: The division's own seed, at least 0.
        key: The setting of the fraction, for messages.

    Returns:
        The training and the validation split: int64 indices, ascending; together all records, each once.

    Raises:
        SettingError: if a value cannot be used, or there are so few groups that a split would be empty.
    """
    check_number(key, val_fraction, low=0.0, high=1.0, open_ends=True)
    check_integer("data.split_seed", seed, minimum=0)
    first, member = first_and_member(groups)
    order = _by_stratum(strata[first].numpy(), seed, "split")
    is_val = np.zeros(len(first), dtype=np.bool_)
    is_val[order] = _taken(np.arange(len(first)), val_fraction)
    train, val = (torch.from_numpy(np.flatnonzero(is_val[member] == side)) for side in (False, True))
    if not (len(train) and len(val)):
        raise SettingError(
            key,
            f"{len(first)} groups of records are too few for a share of {val_fraction:g}: a split would be empty",
        )
    return train, val


def stratified_subset(strata: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw records so that each stratum keeps its share, up to one record; a rare stratum may lose all of them.

    Args:
        strata: int64 (N,).
        count: How many records to draw; all of them, if there are no more.
        seed: The draw's own seed, at least 0.

    Returns:
        int64 indices, ascending.
    """
    total = len(strata)
    if total <= count:
        return torch.arange(total)
    order = _by_stratum(strata.numpy(), seed, "subset")
    return torch.from_numpy(np.sort(order[_taken(np.arange(total), count / total)]))


def _by_stratum(strata: NDArray[np.int64], seed: int, stream: str) -> NDArray[np.int64]:
    """Positions in order of their stratum, at random within it."""
    shuffled = torch.randperm(len(strata), generator=generator(seed, stream)).numpy()
    return np.lexsort((shuffled, strata))


def first_and_member(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The first record of each of G groups, int64 (G,), and which of them each record is in, int64 (N,)."""
    _, first, member = np.unique(groups.numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(member)


def _taken(number: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Every so many-th position, a ``fraction`` of them: where the running quota passes a whole number."""
    quota = np.floor((number + 1) * fraction + 1e-9)
    taken: NDArray[np.bool_] = quota > np.floor(number * fraction + 1e-9)
    return taken


def numbered(words: list[str]) -> Tensor:
    """Equal numbers for equal words, from 0 in alphabetical order: int64 (N,)."""
    return torch.from_numpy(np.unique(np.asarray(words, dtype=np.str_), return_inverse=True)[1]).long()
