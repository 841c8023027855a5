"""What the words and numbers of a manifest mean: classes of whole images, and classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hbdp_fed.data.defects import LABEL, NO_CLASS, Defect
from hbdp_fed.errors import SettingError

TWO_CLASSES = ("background", "foreground")
"""Of masks whose classes nobody named."""

_WHITE = 255


def check_class_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names that a user gave, or None.

    Raises:
        SettingError: if they cannot be names of classes.
    """
    if names is None:
        return None
    given = () if isinstance(names, str) else tuple(str(name) for name in names)
    if len(given) < 2 or len(set(given)) < len(given) or not all(name.strip() for name in given):
        raise SettingError("data.class_names", f"must be two or more different names, as in [no,yes], got {names}")
    return given


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes that occur, sorted: numbers by their size, and otherwise as words."""
    occurring = set(labels)
    if all(label.isdecimal() for label in occurring):
        return tuple(sorted(occurring, key=int))
    return tuple(sorted(occurring))


def class_of(label: str, names: Sequence[str]) -> int:
    """The number of a class, from its name or from the number itself.

    Raises:
        Defect: if there is no such class.
    """
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise Defect(LABEL, f"has the label '{label}', but the classes are {', '.join(names)} (or 0 to {len(names) - 1})")


def classes_of_mask(values: NDArray[np.generic], names: Sequence[str]) -> NDArray[np.int64]:
    """The class of every pixel.

    Args:
        values: Numbers from 0, the background, to the last class; of two classes, 255 may stand for 1.
        names: The classes.

    Raises:
        Defect: if there is any other number, or nothing but background.
    """
    found = np.unique(values)
    if len(names) == 2 and set(found.tolist()) <= {0, _WHITE}:
        values, found = values == _WHITE, found == _WHITE
    outside = [value for value in found.tolist() if value not in range(len(names))]
    if outside:
        white = f" (or {_WHITE} for {names[1]})" if len(names) == 2 else ""
        raise Defect(LABEL, f"holds {outside[0]:g}, but data.class_names has the classes 0 to {len(names) - 1}{white}")
    if not found.any():
        raise Defect(NO_CLASS, f"holds nothing but {names[0]}: none of {', '.join(names[1:])}")
    return values.astype(np.int64)
