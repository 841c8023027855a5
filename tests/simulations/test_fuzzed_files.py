"""Files that nobody should hand in: each is read or refused in one line, and nothing else happens."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from omegaconf import DictConfig

from hbdp_fed.errors import UserError
from hbdp_fed.strict_json import dumps
from simulations import attack, compare, ledger, plan, predict, run, runs
from simulations.compose import typed
from simulations.prepare import prepare
from simulations.program import BAD_INPUT, FAILED, OK
from simulations.sweep import __main__ as sweep
from tests.planning import sweeps
from tests.planning.consortia import small
from tests.simulations.small_runs import BARE, SMALL
from tests.simulations.spoiled_files import spoiled
from tests.simulations.watching import check_ending, ended, flat_memory

Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Reader:
    """A program that reads a file.

    Attributes:
        main: The program.
        file: What it reads, within the folder that everything lies in.
        arguments: Its command line, run in that folder.
        codes: How it may end.
        quick: Whether it takes milliseconds.
    """

    main: Main
    file: str
    arguments: tuple[str, ...]
    codes: Sequence[int] = (OK, BAD_INPUT)
    quick: bool = False


_SIDES = ("run", "twin", "replicates=5")
_PLANNED = ("consortium=ours.yaml", "calibrate=false", "output=out")
_LISTED = (("run", "config.yaml"), ("run", "summary.json"), ("cut", "ending.json"), ("cut", "standing.safetensors"))
READERS = (
    *(
        Reader(runs.main, f"{folder}/{name}", (".", "--format", form), quick=True)
        for folder, name in _LISTED
        for form in ("table", "json", "csv")
    ),
    *(
        Reader(ledger.main, f"run/{name}", ("verify", "run"), codes=(OK, BAD_INPUT, FAILED), quick=True)
        for name in ("ledger.jsonl", "summary.json")
    ),
    *(
        Reader(compare.main, f"run/{name}", _SIDES)
        for name in ("config.yaml", "summary.json", "environment.json", "predictions.npz")
    ),
    Reader(compare.main, "swept/sweep.json", ("swept", "twice")),
    Reader(attack.main, "run/config.yaml", ("run=run",)),
    Reader(run.main, "cut/config.yaml", ("resume=cut",)),
    Reader(run.main, "run/model.safetensors", (*SMALL, "model.weights=run/model.safetensors")),
    *(Reader(predict.main, f"run/{name}", ("run", "scan.npy")) for name in ("card.json", "model.safetensors")),
    *(Reader(predict.main, name, ("run", name)) for name in ("scan.npy", "scan.png")),
    *(Reader(plan.main, "ours.yaml", (*_PLANNED, f"format={form}")) for form in ("table", "json")),
    Reader(plan.main, "swept/sweep.json", (*_PLANNED, "sweep=swept")),
    Reader(sweep.main, "swept/request.json", ("resume=swept",)),
)


def _prepared(composed: DictConfig, *_: Any) -> int:
    """As far as a run goes before it writes."""
    prepare(typed(composed))
    return OK


def _far_enough(*_: Any) -> Any:
    raise UserError("all was read")


def _counted(_: Path, request: Any, *__: Any) -> int:
    request.cells()
    return OK


@pytest.fixture
def as_far_as_reading_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end where their work would begin, and start no other program."""
    monkeypatch.setattr(run, "_run", _prepared)
    monkeypatch.setattr(attack, "_attacked_by", _far_enough)
    monkeypatch.setattr(sweep, "_sweep", _counted)
    monkeypatch.setattr(plan, "environment", lambda device: {})
    monkeypatch.setattr(plan, "processors", lambda: 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything: runs, a sweep, a consortium, an image."""
    folder = tmp_path_factory.mktemp("everything")
    few = [*SMALL, *BARE, "engine.workers=1"]
    assert run.main([*few, f"run_dir={folder / 'run'}"]) == OK
    shutil.copytree(folder / "run", folder / "twin")
    shutil.copytree(folder / "run", folder / "cut")
    (folder / "cut" / "summary.json").unlink()
    (folder / "cut" / "ending.json").write_text('{"state": "failed", "reason": "no power", "rounds": 2}\n')
    (folder / "ours.yaml").write_text(yaml.safe_dump(small(budgets=[1e6, 1e9])))
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    np.save(folder / "scan.npy", image[None])
    _write_png(folder / "scan.png", image)
    for name in ("swept", "twice"):
        (folder / name).mkdir()
        content = sweeps.sweep([sweeps.budget(1e9), sweeps.control()], name=name)
        (folder / name / "sweep.json").write_text(dumps(content))
        request = {
            "name": "s", "fixed": ["clients=3"], "axes": [{"key": "eps", "values": ["1e9", "inf"]}], "seeds": [0],
            "compared": [],
        }  # fmt: skip
        (folder / name / "request.json").write_text(dumps(request))
    return folder


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)


@pytest.mark.parametrize("times", [0.4, pytest.param(36, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("as_far_as_reading_goes")
def test_whatever_a_file_holds_is_read_or_refused_in_one_line(
    times: float, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for reader in READERS:  # what is imported late is in memory from then on
        assert reader.main(reader.arguments) in (OK, BAD_INPUT)
        shutil.rmtree(place / "out", ignore_errors=True)
    with flat_memory():
        for reader in READERS:
            _hand_in_anything(reader, place, examples=math.ceil(times * (5 if reader.quick else 1)))


def _hand_in_anything(reader: Reader, place: Path, *, examples: int) -> None:
    file = place / reader.file
    genuine = file.read_bytes()

    @settings(max_examples=examples, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(spoiled(file.name, genuine))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        check_ending(ended(reader.main, reader.arguments, allowed=place), codes=reader.codes)
        shutil.rmtree(place / "out", ignore_errors=True)

    try:
        check()
    finally:
        file.write_bytes(genuine)
