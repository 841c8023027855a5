"""Which hospital holds which record: by a draw.

The work is split in two so that the same federation can be laid over several splits: ``draw_proportions`` decides which
share of each class a hospital holds, and ``assign`` deals the records of a split by these shares. Hospitals that the
data itself names are in :mod:`hbdp_fed.data.layout`, which also says what counts as a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.data.splits import first_and_member
from hbdp_fed.errors import SettingError, unknown_choice

Proportions = Tensor
"""float64 (num_classes, H): the share of each class that each hospital holds; every row sums to 1."""

NATURAL = "natural"
"""The scheme without a draw."""

_MAX_DRAWS = 1000


@dataclass(frozen=True)
class PartitionSettings:
    """How records are spread over hospitals.

    Attributes:
        scheme: ``natural``, where a column of the data names each record's hospital, or a key of ``SCHEMES``: ``iid``
            gives every hospital the same mix of classes; ``dirichlet`` skews it.
        alpha: The concentration of ``dirichlet``, positive: 0.1 leaves most hospitals with mostly one class, 100 is
            close to ``iid``.
        sizes: A key of ``SIZES``: ``equal``, ``power_law`` for a few large hospitals and many small ones, or ``sites``
            for ``shares``.
        exponent: The power law's exponent, not negative; 0 makes it ``equal``.
        column: The column of ``natural``, one of the data set's attributes.
        shares: Of ``sites``: the share of all records of each hospital, positive; they need not add up to 1.
        overlap: The share of patients (records, where no patient is known) who are known to two hospitals, in [0, 1).
    """

    scheme: str = "iid"
    alpha: float = 0.5
    sizes: str = "equal"
    exponent: float = 1.0
    column: str | None = None
    shares: tuple[float, ...] | None = None
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if self.scheme not in (*SCHEMES, NATURAL):
            raise unknown_choice("partition.scheme", self.scheme, (*SCHEMES, NATURAL))
        if self.sizes not in SIZES:
            raise unknown_choice("partition.sizes", self.sizes, SIZES)
        check_number("partition.alpha", self.alpha, low=0.0, open_ends=True)
        check_number("partition.exponent", self.exponent, low=0.0)
        if not 0 <= check_number("partition.overlap", self.overlap, low=0.0, high=1.0) < 1:
            raise SettingError("partition.overlap", f"must lie in [0, 1), got {self.overlap:g}")


@dataclass(frozen=True)
class Partition:
    """Whose record each record of a split is.

    Attributes:
        indices: One int64 tensor (n_i,) a hospital, ascending. Together they hold every index of the split once.
    """

    indices: tuple[Tensor, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of records of each hospital."""
        return tuple(len(own) for own in self.indices)

    def owners(self) -> Tensor:
        """The hospital of each record, int64 (N,)."""
        owners = torch.empty(sum(self.sizes), dtype=torch.int64)
        for hospital, own in enumerate(self.indices):
            owners[own] = hospital
        return owners


def draw_proportions(
    settings: PartitionSettings,
    *,
    clients: int,
    class_sizes: Tensor,
    generator: torch.Generator,
    min_records: int = 1,
) -> Proportions:
    """Draw which share of each class each hospital holds.

    Draws that leave a hospital with fewer than ``min_records`` records are thrown away and repeated, up to a limit.

    Args:
        settings: The scheme.
        clients: H, the number of hospitals.
        class_sizes: int64 (num_classes,), how many records of each class are to be dealt.
        generator: A CPU generator.
        min_records: The fewest records a hospital may be dealt of these, at least 1.

    Raises:
        SettingError: if there are not enough records for so many hospitals, or the scheme's settings make it
            hopeless to give each hospital enough of them.
    """
    check_integer("clients", clients, minimum=1)
    total = int(class_sizes.sum())
    if clients * min_records > total:
        raise SettingError(
            "clients", f"{clients} hospitals need at least {clients * min_records} records, but there are {total}"
        )
    shares = SIZES[settings.sizes](clients, settings)
    # NumPy has a gamma sampler that survives tiny concentrations; its stream follows from the torch generator's.
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    for _ in range(_MAX_DRAWS):
        proportions = SCHEMES[settings.scheme](shares, len(class_sizes), settings.alpha, rng)
        if proportions.isfinite().all() and int(deal_counts(class_sizes, proportions).sum(dim=0).min()) >= min_records:
            return proportions
    raise _too_uneven(settings, clients, total, min_records)


def assign(
    labels: Tensor, proportions: Proportions, generator: torch.Generator, *, groups: Tensor | None = None
) -> Partition:
    """Deal every record of a split to one hospital.

    Args:
        labels: int64 (N,), classes from 0.
        proportions: The share of each class each hospital holds.
        generator: A CPU generator: decides which records of a class go where, not how many.
        groups: int64 (N,), equal for records of one patient, who is dealt as a whole and counts as one record of the
            class of the first; None where every record stands for itself.

    Returns:
        A partition in which hospital i has ``deal_counts(...)[c, i]`` records (or patients) of class c; that may be
        none.

    Raises:
        ValueError: if a label has no row in ``proportions``.
    """
    if groups is not None:
        first, member = first_and_member(groups)
        dealt = assign(labels[first], proportions, generator)
        return by_owner(dealt.owners()[member], proportions.shape[1])
    num_classes, clients = proportions.shape
    counts = deal_counts(torch.bincount(labels, minlength=num_classes), proportions)
    parts: list[list[Tensor]] = [[] for _ in range(clients)]
    for label, row in enumerate(counts):
        members = torch.nonzero(labels == label)[:, 0]
        shuffled = members[torch.randperm(len(members), generator=generator)]
        for own, given in zip(parts, shuffled.split(row.tolist()), strict=True):
            own.append(given)
    return Partition(indices=tuple(torch.cat(own).sort().values for own in parts))


def by_owner(owners: Tensor, clients: int) -> Partition:
    """The partition in which record n is that of hospital ``owners[n]``, int64 (N,) below ``clients``."""
    return Partition(indices=tuple(torch.nonzero(owners == hospital)[:, 0] for hospital in range(clients)))


def deal_counts(class_sizes: Tensor, proportions: Proportions) -> Tensor:
    """How many records of each class each hospital gets: shares rounded to whole records, none lost.

    The method of largest remainders, class by class: everyone gets its quota rounded down, and the records left over go
    to the largest remainders. What rounding gave or took in one class is carried to the next, so that equal hospitals
    stay equal up to one record however many classes there are; ties go to the hospital that comes first.

    Args:
        class_sizes: int64 (num_classes,).
        proportions: float64 (num_classes, H).

    Returns:
        int64 (num_classes, H); row c sums to ``class_sizes[c]``, and each entry is its quota rounded down or up.

    Raises:
        ValueError: if the numbers of classes differ.
    """
    if len(class_sizes) != len(proportions):
        raise ValueError(f"{len(class_sizes)} classes are to be dealt, but proportions has {len(proportions)} rows")
    carried = torch.zeros(proportions.shape[1], dtype=torch.float64)
    rows = []
    for size, shares in zip(class_sizes.tolist(), proportions, strict=True):
        quota = size * shares
        # A quota such as 2.9999999999999996 is the whole number 3.
        row = (quota + 1e-9).floor().long()
        remainder = quota - row
        # Whoever has a whole quota is owed nothing in this class, however much the others have carried.
        claim = torch.where(remainder > 1e-9, remainder + carried, -torch.inf)
        left_over = size - int(row.sum())
        # Rounded, so that equal claims tie whatever the last bits of their sums are.
        first = torch.argsort(claim.mul(1e9).round(), descending=True, stable=True)[:left_over]
        row[first] += 1
        carried += quota - row
        rows.append(row)
    return torch.stack(rows)


def hospital_names(count: int) -> tuple[str, ...]:
    """``hospital-01``, ``hospital-02``, ...: as many digits as the last one needs, at least two, so that they sort."""
    digits = max(2, len(str(count)))
    return tuple(f"hospital-{number:0{digits}d}" for number in range(1, count + 1))


def _equal_shares(clients: int, settings: PartitionSettings) -> Tensor:
    """The same share of all records for every hospital: float64 (H,)."""
    return torch.full((clients,), 1 / clients, dtype=torch.float64)


def _power_law_shares(clients: int, settings: PartitionSettings) -> Tensor:
    """Hospital i (from 0) in proportion to (i + 1)^-exponent: float64 (H,)."""
    weights = torch.arange(1, clients + 1, dtype=torch.float64) ** -settings.exponent
    return weights / weights.sum()


def _given_shares(clients: int, settings: PartitionSettings) -> Tensor:
    """Every hospital's own share, as it was given: float64 (H,)."""
    weights = torch.tensor(settings.shares or (1.0,) * clients, dtype=torch.float64)
    if len(weights) != clients or not bool((weights > 0).all()):
        raise ValueError(f"shares must be {clients} positive numbers, got {settings.shares}")
    return weights / weights.sum()


def _iid(shares: Tensor, num_classes: int, alpha: float, rng: np.random.Generator) -> Proportions:
    """Every class is spread in the same way."""
    return shares.expand(num_classes, -1).clone()


def _dirichlet(shares: Tensor, num_classes: int, alpha: float, rng: np.random.Generator) -> Proportions:
    """Each class is spread by its own draw from a Dirichlet distribution with mean ``shares``.

    With equal shares every concentration is ``alpha``, as in Yurochkin et al. 2019 (arXiv 1905.12022), section 4.
    """
    concentration = alpha * len(shares) * shares
    return torch.from_numpy(rng.dirichlet(concentration.numpy(), size=num_classes))


SCHEMES: Mapping[str, Callable[[Tensor, int, float, np.random.Generator], Proportions]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
}
"""How classes are spread, by name: from size shares, number of classes, alpha and a random stream to proportions."""

SIZES: Mapping[str, Callable[[int, PartitionSettings], Tensor]] = {
    "equal": _equal_shares,
    "power_law": _power_law_shares,
    "sites": _given_shares,
}
"""How large hospitals are, by name: from their number and the settings to shares of all records that sum to 1."""


def _too_uneven(settings: PartitionSettings, clients: int, total: int, min_records: int) -> SettingError:
    """The error when no draw gave everyone enough, naming the setting that is to blame."""
    goal = f"each of {clients} hospitals at least {min_records} of {total} records"
    if settings.sizes == "power_law" and settings.scheme == "iid":
        return SettingError(
            "partition.exponent", f"{settings.exponent:g} is too steep to give {goal}; take a smaller one"
        )
    if settings.sizes == "sites" and settings.scheme == "iid":
        return SettingError("sites", f"its shares are too uneven to give {goal}; take fewer clients")
    return SettingError(
        "partition.alpha",
        f"{_MAX_DRAWS} draws with {settings.alpha:g} did not give {goal}; take a larger alpha",
    )
