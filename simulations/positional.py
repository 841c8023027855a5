"""Command lines that name files beside settings: ``compare runs/a runs/b format=md``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simulations.typed_path import exists

_SETTING = re.compile(r"[+~]*[A-Za-z_][\w.]*=")


def parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names files, and what is a setting.

    A setting is a word before an equals sign, unless a file of that name exists: ``runs/eps=1`` is a folder, since no
    setting has a slash in its name, and so is ``eps=1`` where there is one.
    """
    settings = [text for text in arguments if _SETTING.match(text) and not exists(text)]
    return [text for text in arguments if text not in settings], settings
