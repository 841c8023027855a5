"""Attacks on what an old run recorded: the run's own figures, and others where something else is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import pytest

import simulations.execute
import simulations.run
from hbdp_fed.federation import engine
from simulations.attack import main

PROBING = ("imprint", "trap_weights", "linear_probe")
GAMES = ("candidate_matching", "membership")
QUERIES = ("linear_reconstruction", "queries")
"""Needs nothing that a run recorded; for property inference, which does not either, these hospitals are too small."""

HOSPITALS = ("hospital-01", "hospital-02")
ROUNDS, LOCAL_STEPS = 2, 2
PROBE_OF = {name: ROUNDS + 1 + place for place, name in enumerate(PROBING)}

SMALL = (
    "clients=2", f"training.rounds={ROUNDS}", f"training.local_steps={LOCAL_STEPS}", "training.expected_batch=8",
    "data.num_train=40", "data.num_val=24", "data.num_test=30", "model.width=4", "evaluation.bootstrap=0",
    "evaluation.matrix=0", "adversary.bins=32", "adversary.candidates=4", "adversary.targets=6",
)  # fmt: skip


def summary(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(found, dict)
    return found


def by_attack(risk: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    entries = [entry for model in risk.values() for entry in model["attacks"]]
    found = {(entry["name"], entry["surface"]): entry for entry in entries}
    assert len(found) == len(entries)
    return found


def files(folder: Path) -> dict[str, str]:
    """A fingerprint of everything that the run itself left."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "attacks" not in path.relative_to(folder).parts
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was put to every attack."""
    folder = tmp_path_factory.mktemp("everything") / "run"
    assert simulations.run.main([*SMALL, "engine=inprocess", f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def sparing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was put to one attack and recorded nothing else, by an optimiser whose updates do not add up."""
    folder = tmp_path_factory.mktemp("sparing") / "run"
    assert simulations.run.main([
        *SMALL, "engine=inprocess", "adversary.attack=imprint", "federation.record=probes", "training.optimizer=nadam",
        "training.learning_rate=1e-3", f"run_dir={folder}",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was put to two attacks in one training round, in which no probe lies."""
    folder = tmp_path_factory.mktemp("narrow") / "run"
    assert simulations.run.main([
        *SMALL, "engine=inprocess", "adversary.attack=[imprint,candidate_matching]", "adversary.rounds=[2]",
        f"run_dir={folder}",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of these runs on the other engine."""
    folder = tmp_path_factory.mktemp("ray") / "run"
    assert simulations.run.main([*SMALL, "engine=ray", "engine.workers=2", f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch, everything: Path, sparing: Path) -> Iterator[None]:
    """Whatever is attacked was trained before, and stays as it was."""
    before = {folder: files(folder) for folder in (everything, sparing)}

    def refuse(*_: Any, **__: Any) -> NoReturn:
        pytest.fail("a federation was run")

    monkeypatch.setattr(engine, "run_federation", refuse)
    monkeypatch.setattr(simulations.execute, "run_federation", refuse)
    monkeypatch.setattr(simulations.run, "execute", refuse)
    yield
    assert {folder: files(folder) for folder in before} == before


def attack(run: Path, output: Path, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries of a successful attack."""
    assert main([f"run={run}", f"output={output}", *arguments]) == 0
    return by_attack(json.loads((output / "risk.json").read_text(), parse_constant=pytest.fail)["risk"])


def drawn(run: Path, number: int, hospitals: Sequence[str] = HOSPITALS) -> int:
    """How many records were in a probe's batches, as the hospitals reported it."""
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return sum(line["records_seen"] for line in rounds if line["round"] == number and line["hospital"] in hospitals)


# The run's own attacks once more.


def test_without_settings_every_entry_of_the_run_comes_out_again_and_pictures_are_drawn(
    everything: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={everything}"]) == 0
    [output] = (everything / "attacks").iterdir()
    written = json.loads((output / "risk.json").read_text(), parse_constant=pytest.fail)
    theirs = summary(everything)
    assert written["risk"] == theirs["risk"]
    assert set(by_attack(written["risk"])) == {*((name, "gradient") for name in (*PROBING, *GAMES)), QUERIES}
    assert written["settings"] == {"run": str(everything)}
    attacks = {*PROBING, *GAMES, QUERIES[0], "property_inference"}
    assert set(written["time"]["attacks_s"]) == set(theirs["time"]["attacks_s"]) == attacks
    for name in PROBING:
        for ending in ("png", "npz"):
            drawn_again = (output / f"{name}_gradient.{ending}").stat().st_size
            assert drawn_again == (everything / f"reconstructions/{name}_gradient.{ending}").stat().st_size > 1000
    shown = capsys.readouterr().out
    for name in (*PROBING, *GAMES):
        assert f"{name} (gradient): the same as in the run's summary, to the last digit" in shown
    assert "attack left out: property_inference: no hospital has enough records" in " ".join(shown.split())
    assert str(output / "risk.json") in shown
    # The next one has a folder of its own, even within the same second.
    assert main([f"run={everything}", "attack=membership"]) == 0
    assert len(list((everything / "attacks").iterdir())) == 2


@pytest.mark.slow
def test_a_run_on_ray_has_the_same_risk_to_the_last_digit(everything: Path, on_ray: Path) -> None:
    found, expected = summary(on_ray), summary(everything)
    assert found["engine"]["name"] == "ray"
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["risk"] == expected["risk"]


def test_a_run_that_was_moved_and_never_finished_is_attacked_all_the_same(
    sparing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(sparing, moved)
    (moved / "summary.json").unlink()
    [entry] = attack(moved, tmp_path / "out").values()
    assert entry == by_attack(summary(sparing)["risk"])["imprint", "gradient"]
    assert "the run has no summary to compare with: it was not finished" in capsys.readouterr().out


def test_a_run_that_was_attacked_in_one_round_only_is_reproduced_in_it_and_auto_takes_more(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The imprint was not among its attacks in that round, but its probe was recorded."""
    found = attack(narrow, tmp_path / "again")
    assert found == by_attack(summary(narrow)["risk"])
    assert set(found) == {("candidate_matching", "gradient")}
    assert "attack left out: imprint: no probe of imprint in round 2 was recorded" in capsys.readouterr().out
    more = attack(narrow, tmp_path / "more", "attack=[auto]", "rounds=[]")
    assert set(more) == {*((name, "gradient") for name in ("imprint", *GAMES)), QUERIES}
    assert more["membership", "gradient"]["steps"] == ROUNDS * LOCAL_STEPS


# Something else than the run's own attacks.


def test_surfaces_that_the_run_was_not_attacked_on(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = by_attack(summary(everything)["risk"])
    surfaces = ("update", "aggregate", "global_model")
    found = attack(everything, tmp_path / "out", f"surfaces=[{','.join(surfaces)}]")
    assert set(found) == {*((name, surface) for name in (*PROBING, *GAMES) for surface in surfaces), QUERIES}
    assert found[QUERIES] == before[QUERIES]
    for name in PROBING:
        # A probe is one step, and its update is that step's gradient.
        assert {**found[name, "update"], "surface": "gradient"} == before[name, "gradient"]
        for surface in ("aggregate", "global_model"):
            assert found[name, surface]["records"] == drawn(everything, PROBE_OF[name])
            assert (tmp_path / f"out/{name}_{surface}.png").read_bytes().startswith(b"\x89PNG")
    for name in GAMES:
        for surface in surfaces:
            entry = found[name, surface]
            assert (entry["records"], entry["steps"]) == (6, ROUNDS * LOCAL_STEPS)
        # Beside the noise of one hospital the other's only adds protection.
        assert found[name, "aggregate"]["bound"] <= found[name, "update"]["bound"]
    shown = capsys.readouterr().out
    assert "imprint (update): new, the run's summary has no such entry" in shown


def test_the_last_model_alone_is_one_release_of_all_steps(everything: Path, tmp_path: Path) -> None:
    given = ["attack=candidate_matching", "surfaces=[global_model]"]
    found = attack(everything, tmp_path / "last", *given, "only_last_model=true")
    assert found["candidate_matching", "global_model"]["steps"] == ROUNDS * LOCAL_STEPS
    last_round = attack(everything, tmp_path / "round", *given, "observed_rounds=1")
    assert last_round["candidate_matching", "global_model"]["steps"] == LOCAL_STEPS


def test_only_the_records_of_the_hospitals_that_were_named_are_attacked(everything: Path, tmp_path: Path) -> None:
    before = by_attack(summary(everything)["risk"])
    found = {
        hospital: attack(everything, tmp_path / hospital, f"hospitals=[{hospital}]", "attack=[imprint,linear_probe]")
        for hospital in HOSPITALS
    }
    for name in ("imprint", "linear_probe"):
        counts = [found[hospital][name, "gradient"]["records"] for hospital in HOSPITALS]
        assert counts == [drawn(everything, PROBE_OF[name], [hospital]) for hospital in HOSPITALS]
        assert sum(counts) == before[name, "gradient"]["records"] == drawn(everything, PROBE_OF[name])
        rebuilt = [found[hospital][name, "gradient"]["reconstructed"] for hospital in HOSPITALS]
        assert sum(rebuilt) == before[name, "gradient"]["reconstructed"]


def test_only_the_rounds_that_were_named_are_attacked(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of one probe out of two are those of an attack that saw this one alone."""
    found = attack(everything, tmp_path / "game", "attack=membership", "rounds=[1]", "targets=3", "candidates=3")
    [entry] = found.values()
    assert entry["steps"] == LOCAL_STEPS
    assert entry["records"] == 4, "two of each hospital: half of three, and nobody is attacked by half"
    # Whoever names no attack gets those that something was recorded for in these rounds.
    found = attack(everything, tmp_path / "probe", f"rounds=[{PROBE_OF['trap_weights']},1]")
    assert {name for name, _ in found} == {"trap_weights", *GAMES, QUERIES[0]}
    assert found["trap_weights", "gradient"] == by_attack(summary(everything)["risk"])["trap_weights", "gradient"]
    shown = capsys.readouterr().out
    assert f"attack left out: imprint: no probe of imprint in round {PROBE_OF['trap_weights']}, 1 was recorded" in shown


def test_every_threshold_has_its_rate_and_the_first_one_decides(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("attack=trap_weights",)
    both = attack(everything, tmp_path / "both", *given, "thresholds=[0.8,0.5]")["trap_weights", "gradient"]
    other = attack(everything, tmp_path / "other", *given, "thresholds=[0.5]")["trap_weights", "gradient"]
    assert both["success_rates"] == {"0.8": both["success_rate"], "0.5": other["success_rate"]}
    assert both["success_rate"] == by_attack(summary(everything)["risk"])["trap_weights", "gradient"]["success_rate"]
    assert both["success_rates"]["0.5"] >= both["success_rates"]["0.8"]
    assert "trap_weights (gradient): differs from the run's summary in " in capsys.readouterr().out


def test_another_prior_moves_the_bounds_that_start_from_it(everything: Path, tmp_path: Path) -> None:
    main([f"run={everything}", f"output={tmp_path / 'out'}", "attack=linear_probe", "prior=0.5"])
    risk = json.loads((tmp_path / "out/risk.json").read_text())["risk"]
    before = summary(everything)["risk"]
    for model in ("worst_case", "relaxed"):
        assert (risk[model]["prior"], before[model]["prior"]) == (0.5, 0.01)
        assert risk[model]["bound"] > before[model]["bound"]


# What cannot be used.


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["surfaces=[brain]"],
            "surfaces: 'brain' is not known; choose one of: aggregate, auto, global_model, gradient, up",
        ),
        (["surfaces=[]"], "surfaces: must be different ones of: gradient, update, aggregate, global_model"),
        (["hospitals=[hospital-03]"], "hospitals: 'hospital-03' is not known; choose one of: hospital-01, hospital-02"),
        (["attack=inversion"], "attack: 'inversion' is not known; choose one of: all, auto, candidate_matching, "),
        (["attack=[imprint,auto]"], "attack: auto, all and none stand alone, got imprint, auto"),
        (
            ["attack=none"],
            "attack: none leaves nothing to do; choose auto, all, or of: imprint, trap_weights, loki, ",
        ),
        (["hospitals=[hospital-01,hospital-01]"], "hospitals: must be different ones, got hospital-01, hospital-01"),
        (["rounds=[1]", "observed_rounds=1"], "observed_rounds: no training round is left to membership: 0 takes all"),
        (["rounds=[6]"], "rounds: must be from 1 to 5, the probes included; got 6"),
        (["candidates=32"], "candidates: must be at most 31: decoys come from the 30 test records"),
        (["candidates=1"], "candidates: must be at least 2, got 1"),
        (["targets=0"], "targets: must be at least 1, got 0"),
        (["thresholds=[1.5]"], "thresholds: must be one or more SSIMs between 0 and 1, got [1.5]"),
        (["observed_rounds=-1"], "observed_rounds: must be at least 0 (all), or null, got -1"),
        (["only_last_model=true"], "only_last_model: is about the surface global_model: add it to surfaces"),
        (["prior=0"], "prior: must lie strictly between 0 and 1, got 0"),
        (["bins=3"], "bins: there is no such setting"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_the_key_and_what_it_accepts(
    arguments: list[str], told: str, everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Candidates are only looked at by games.
    attacks = [] if any(argument.startswith("attack=") for argument in arguments) else ["attack=membership"]
    said = refusal(capsys, f"run={everything}", f"output={tmp_path / 'out'}", *attacks, *arguments)
    assert said.startswith(told)
    assert not (tmp_path / "out").exists()


def test_an_attack_whose_probe_was_not_recorded_is_refused_with_what_was(
    sparing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (f"run={sparing}", f"output={tmp_path / 'out'}")
    assert refusal(capsys, *given, "attack=[imprint,linear_probe]") == (
        "attack: no probe of linear_probe was recorded; probes are planned before training (adversary.attack); "
        f"recorded with rounds: imprint ({ROUNDS + 1})"
    )
    assert "no probe of imprint in round 1 was recorded" in refusal(capsys, *given, "attack=imprint", "rounds=[1]")
    assert refusal(capsys, *given, "attack=membership").startswith("federation.record: must be all for membership")
    assert not (tmp_path / "out").exists()


def test_a_surface_on_which_the_runs_updates_do_not_add_up_is_refused(
    sparing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, f"run={sparing}", f"output={tmp_path / 'out'}", "attack=imprint", "surfaces=[aggregate]")
    assert told == "surfaces: aggregate needs training.optimizer=sgd"


def test_auto_is_everything_that_the_run_recorded_for_and_says_what_is_missing(
    sparing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = attack(sparing, tmp_path / "out", "attack=auto")
    assert set(found) == {("imprint", "gradient"), QUERIES}
    shown = capsys.readouterr().out
    for name in ("trap_weights", "linear_probe"):
        assert f"attack left out: {name}: no probe of {name} was recorded" in shown
    for name in GAMES:
        assert f"attack left out: {name}: federation.record must be all" in shown


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys) == "run: name the folder of a run: run=runs/..."
    assert refusal(capsys, f"run={tmp_path / 'no'}").startswith(f"run: {tmp_path / 'no'} holds no run")
    config = tmp_path / "config.yaml"
    for content in ("a: 1", "[1, 2]", "data: 3", "data: {name: nosuch}", "data: [", "\x00"):
        config.write_text(content)
        told = refusal(capsys, f"run={tmp_path}")
        assert told.startswith((f"run: {config} ", "run: ")), content
        assert str(config) in told, content
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_of_settings_that_are_gone_is_refused(
    sparing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (sparing / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(content + "forgotten: 3\n")
    told = refusal(capsys, f"run={tmp_path}")
    assert told.startswith(f"run: {tmp_path / 'config.yaml'} is of another version: ")
    assert "forgotten" in told


def test_a_folder_that_holds_something_is_never_written_into(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        told = refusal(capsys, f"run={everything}", "attack=membership", f"output={place}")
        assert told == f"output: {place} exists and is not an empty folder; choose another one"
    assert "cannot be created" in refusal(
        capsys, f"run={everything}", "attack=membership", f"output={tmp_path / 'notes.txt' / 'out'}"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_help_tells_the_settings_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("usage: python -m simulations.attack run=FOLDER", "only_last_model: null", "exit codes: 0 done"):
        assert word in shown
