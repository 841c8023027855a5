"""What the words and numbers of a manifest mean: classes of whole images, and classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    if len(given) > _WHITE:
        raise SettingError("data.class_names", f"must be at most {_WHITE} names, got {len(given)}")
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


def classes_of_mask(values: NDArray[Any], names: Sequence[str]) -> NDArray[np.uint8]:
    """The class of every pixel.

    Args:
        values: Numbers from 0, the background, to the last class; of two classes, 255 may stand for 1.
        names: The classes, at most 255.

    Raises:
        Defect: if there is any other number, or nothing but background.
    """
    strange = values[~((values >= 0) & (values <= _WHITE) & (values == np.floor(values)))]
    classes = np.where(np.isfinite(values), values, 0).clip(0, _WHITE).astype(np.uint8)
    found = set(np.flatnonzero(np.bincount(classes.ravel(), minlength=_WHITE + 1)).tolist())
    if len(names) == 2 and found <= {0, _WHITE}:
        classes, found = (classes == _WHITE).astype(np.uint8), {value // _WHITE for value in found}
    outside = [*strange[:1].tolist(), *sorted(found - set(range(len(names))))]
    if outside:
        white = f" (or {_WHITE} for {names[1]})" if len(names) == 2 else ""
        raise Defect(
            LABEL, f"holds {outside[0]:g}, but the classes are 0 to {len(names) - 1}{white}: {', '.join(names)}"
        )
    if found <= {0}:
        raise Defect(NO_CLASS, f"holds nothing but {names[0]}: none of {', '.join(names[1:])}")
    return classes
