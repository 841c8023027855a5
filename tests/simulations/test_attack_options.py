"""An attack's own keywords: checked before training, used by the run, and changed by a later attack on its records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.errors import SettingError
from simulations.attack import main as attack
from simulations.attack_options import checked_options
from simulations.run import main as run
from tests.simulations.small_runs import BARE, SMALL

QUICK = "optimizer: adam, iterations: 2, tv_weights: [1e-3], widths: [0.1], rehearsals: 0"


def test_values_have_the_types_that_the_attack_takes() -> None:
    given = {"gradient_inversion": {"tv_weights": [1, 0.5], "iterations": 3, "box": False}, "trap_weights": {"rank": 4}}
    assert checked_options(given) == {
        "gradient_inversion": {"tv_weights": (1.0, 0.5), "iterations": 3, "box": False},
        "trap_weights": {"rank": 4},
    }


@pytest.mark.parametrize(
    ("given", "key", "problem"),
    [
        ({"magic": {}}, "", "'magic' is not known; choose one of: gradient_inversion, imprint"),
        ({"membership": {}}, "", "'membership' is not known"),
        ({"kkt": 3}, ".kkt", "must be a mapping of its keywords, got 3"),
        ({"kkt": {"steps": 3}}, ".kkt", "'steps' is not known; choose one of: alike, candidates"),
        # What a run has a setting for is set there, and only there.
        ({"imprint": {"bins": 3}}, ".imprint", "'bins' is not known"),
        ({"kkt": {"device": "cpu"}}, ".kkt", "'device' is not known"),
        ({"kkt": {"iterations": 1.5}}, ".kkt.iterations", "got 1.5"),
        ({"kkt": {"iterations": 0}}, ".kkt.iterations", "at least 1"),
        ({"gradient_inversion": {"objective": "angle"}}, ".gradient_inversion.objective", "cosine"),
    ],
)
def test_what_an_attack_does_not_take_is_named(given: Mapping[str, Any], key: str, problem: str) -> None:
    with pytest.raises(SettingError) as error:
        checked_options(given)
    assert error.value.key == f"adversary.options{key}"
    assert problem in error.value.problem


def test_bad_options_end_a_run_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SMALL, "adversary.options={kkt: {iterations: 0}}", f"run_dir={tmp_path / 'r'}"]) == 2
    assert capsys.readouterr().err.startswith("error: adversary.options.kkt.iterations: must be")
    assert list(tmp_path.iterdir()) == []


def test_a_run_and_a_later_attack_use_what_they_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = f"adversary.options={{gradient_inversion: {{{QUICK}}}, imprint: {{rank: 3}}}}"
    attacks = "adversary.attack=[imprint,gradient_inversion]"
    few = ["training.local_steps=1", "adversary.rounds=[1,3]", "adversary.hospitals=[hospital-01]"]
    assert run([*SMALL[:-1], *BARE[1:], *few, attacks, options, f"run_dir={tmp_path / 'r'}"]) == 0
    # As in the run, to the last digit; with other options another search; and a probe is as it was sent.
    assert attack([f"run={tmp_path / 'r'}", f"output={tmp_path / 'same'}"]) == 0
    assert capsys.readouterr().out.count("the same as in the run's summary") == 2
    other = f"options={{gradient_inversion: {{{QUICK.replace('[0.1]', '[0.5]')}}}}}"
    assert attack([f"run={tmp_path / 'r'}", f"output={tmp_path / 'other'}", "attack=gradient_inversion", other]) == 0
    assert "gradient_inversion (gradient): differs from the run's summary" in capsys.readouterr().out
    assert attack([f"run={tmp_path / 'r'}", f"output={tmp_path / 'no'}", "options={imprint: {rank: 4}}"]) == 2
    assert "error: options.imprint: must be as in the run" in capsys.readouterr().err
