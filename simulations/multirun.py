"""Hydra's own way of varying settings: ``--multirun eps=1,1e9 seed=0,1`` is one run after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from hbdp_fed.errors import SettingError
from simulations.compose import MOST_RUNS, compose_run, parse, swept
from simulations.run_folder import chosen_folder, time_stamp

FLAGS = ("--multirun", "-m")


def planned_runs(arguments: Sequence[str]) -> list[list[str]]:
    """The command lines that a ``--multirun`` stands for, in Hydra's order: what comes last varies fastest.

    Each run lies in a numbered folder of one of their own, which ``run_dir`` may name.

    Args:
        arguments: Without the flag; ``key=a,b``, ``key=choice(a,b)``, ``key=range(1,4)`` vary.

    Raises:
        UserError: for what cannot be read, a setting that does not exist, or a value that cannot be used.
    """
    target, texts = None, []
    for text in arguments:
        key, _, value = text.partition("=")
        if key == "run_dir":
            target = value
        elif key == "resume":
            raise SettingError("resume", "goes on with one run: leave --multirun out")
        else:
            texts.append(text)
    overrides = parse(texts, example="eps=1,1e12", sweeps=True)
    values = [
        [f"{override.key_or_group}={value}" for value in swept(override)] if override.is_sweep_override() else [text]
        for text, override in zip(texts, overrides, strict=True)
    ]
    if (many := math.prod(map(len, values))) > MOST_RUNS:
        raise SettingError("--multirun", f"must stand for at most {MOST_RUNS} runs, got {many}")
    runs = [list(chosen) for chosen in itertools.product(*values)]
    for settings in runs:
        compose_run(settings)
    folder = chosen_folder(target, Path("runs").resolve() / f"{time_stamp()}_multirun", key="run_dir")
    return [[*settings, f"run_dir={folder / str(number)}"] for number, settings in enumerate(runs)]
