"""The pages: reachable, and true where a program can tell, down to the snippets and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest

from hbdp_fed.adversary import ATTACKS, SURFACES, THREAT_MODELS
from hbdp_fed.privacy import relaxed_coherent, relaxed_paper, worst_case
from simulations import schema
from simulations.cli import COMMANDS
from simulations.compose import choices, compose_run, groups, typed
from simulations.docs import PAGES, main, page, title
from simulations.predict import main as predict
from simulations.prepare import prepare
from simulations.run import main as run
from tests.simulations.small_runs import BARE
from tests.simulations.small_runs import run as small_run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "hbdp_fed" / "docs"
PROGRAMS = ("run", "sweep", "budget", "plan", "attack", "compare", "predict")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words of every command that an indented block shows, environment variables aside."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    shown = [shlex.split(line) for line in lines if re.match(r"(\w+=\S+ )?hbdp-fed ", line)]
    return [words[words.index("hbdp-fed") + 1 :] for words in shown]


def settings_in(text: str) -> Iterator[tuple[str, str | None]]:
    """Every key, or key with a value, in inline code."""
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if match := re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)*)=(\S+)", code):
            yield match[1], match[2]
        elif re.fullmatch(r"[a-z_]+\.[a-z_]+", code) and code.split(".")[0] in [*groups(), "adversary", "training"]:
            yield code, None


def known_keys() -> set[str]:
    """The settings of every program, whatever is chosen of a group."""
    roots = [
        schema.RunConfig, schema.SweepConfig, schema.BudgetConfig, schema.PlanConfig, schema.AttackConfig,
        schema.CompareConfig, schema.PredictConfig,
    ]  # fmt: skip
    return {name for root in roots for name in keys_of(root)} | set(groups())


def keys_of(kind: type, prefix: str = "") -> Iterator[str]:
    types = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(types[field.name]):
            for chosen in with_subclasses(types[field.name]):
                yield from keys_of(chosen, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for below in kind.__subclasses__():
        yield from with_subclasses(below)


def test_every_page_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(PAGES) == sorted(path.stem for path in FOLDER.glob("*.md"))
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name in PAGES:
        assert f"{name} " in listed
        assert title(name) in listed
        assert main([name]) == main([f"{name}.md"]) == 0
        assert capsys.readouterr().out == 2 * (FOLDER / f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"), [(["relaxd"], "page: 'relaxd' is not known"), (["relaxed", "realistic"], "name one page")]
)
def test_a_page_that_does_not_exist_is_refused(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_pages_and_named_files_exist(name: str) -> None:
    text = page(name)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (FOLDER / target).is_file(), target
    for path in re.findall(r"`((?:hbdp_fed|simulations|tests|configs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_page_can_be_found_from_another_one() -> None:
    linked = {target for name in PAGES for target in re.findall(r"\]\((\w+)\.md\)", page(name))}
    assert linked == set(PAGES)


def test_every_setting_that_a_page_names_exists() -> None:
    known = known_keys()
    named = {key for name in PAGES for key, _ in settings_in(page(name))}
    assert len(named) > 20
    assert named <= known, named - known


def test_every_choice_that_a_page_names_exists() -> None:
    for name in PAGES:
        for key, value in settings_in(page(name)):
            if key in groups() and value is not None:
                assert value in choices(key), f"{name}: {key}={value}"


# Those of own_data are carried out below.
@pytest.mark.parametrize("name", [name for name in PAGES if name != "own_data"])
def test_every_command_that_a_page_shows_is_accepted(name: str) -> None:
    for command, *words in commands(page(name)):
        assert command in COMMANDS
        if command in PROGRAMS:
            compose_run([word for word in words if "=" in word], config_name=command)


def test_every_attack_is_on_the_page_of_its_threat_model_and_nowhere_else_as_run() -> None:
    assert set(THREAT_MODELS) <= set(PAGES)
    for name, entry in ATTACKS.items():
        listed = {model for model in THREAT_MODELS if f"\n- `{name}` " in page(model)}
        assert listed == {entry.threat_model.name}


def test_every_surface_is_explained() -> None:
    assert all(f"| `{surface}` |" in page("worst_case") for surface in SURFACES)


def test_the_figures_of_the_paper_s_formula_are_those_of_the_code() -> None:
    mechanism = {"prior": 0.01, "noise_multiplier": 3.0, "sample_rate": 1.0, "steps": 100}
    text = page("relaxed")
    assert f"{relaxed_paper(**mechanism):.3f}" in text  # type: ignore[arg-type]
    assert f"{relaxed_coherent(**mechanism):.3f}" in text  # type: ignore[arg-type]


def test_closed_forms_are_those_of_the_code() -> None:
    from scipy.stats import norm

    sigma, steps, kappa = 4.0, 9, 0.02
    shift, z = steps**0.5 / sigma, norm.ppf(1 - kappa / 2)
    mechanism = {"prior": kappa, "noise_multiplier": sigma, "sample_rate": 1.0, "steps": steps}
    assert worst_case(**mechanism) == pytest.approx(norm.cdf(shift + norm.ppf(kappa)))  # type: ignore[arg-type]
    expected = norm.cdf(shift - z) + norm.cdf(-shift - z)
    assert relaxed_coherent(**mechanism) == pytest.approx(expected)  # type: ignore[arg-type]


# Adding an attack.


def test_an_attack_added_as_the_page_shows_is_run_scored_reported_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hbdp_fed import adversary
    from simulations import attack

    text = page("adding_an_attack")
    [snippet] = python_blocks(text)
    names: dict[str, Any] = {**vars(adversary), "__name__": __name__}
    exec(compile(snippet, "adding_an_attack.md", "exec"), names)
    (line,) = (line.strip() for line in text.splitlines() if line.startswith('    "public_mean"'))
    for name, entry in eval("{" + line + "}", names).items():
        monkeypatch.setitem(cast("dict[str, Any]", adversary.ATTACKS), name, entry)
    summary = small_run(
        tmp_path / "run", *BARE, "adversary.attack=public_mean", "adversary.surfaces=[update,aggregate]"
    )
    entries = summary["risk"]["realistic"]["attacks"]
    assert [(entry["name"], entry["surface"]) for entry in entries] == [
        ("public_mean", "update"),
        ("public_mean", "aggregate"),
    ]
    # It is its own baseline: nothing is rebuilt, however like the images are.
    assert all(entry["success_rate"] == 0 and entry["records"] > 0 for entry in entries)
    assert entries[0]["ssim_max"] > 0.1
    assert "public mean" in (tmp_path / "run" / "report.md").read_text()
    capsys.readouterr()
    assert attack.main([f"run={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out.count("the same as in the run's summary, to the last digit") == 2


# Own data.


@pytest.fixture
def mydata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the page's snippets were run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HBDP_DATA", "mydata")
    for snippet in python_blocks(page("own_data")):
        exec(compile(snippet, "own_data.md", "exec"), {})
    return tmp_path


def test_arrays_are_trained_on_and_asked_about_as_the_page_shows(
    mydata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    (_, first, ask, *_) = commands(page("own_data"))
    assert (
        run([*first[1:], "engine=inprocess", "adversary.attack=none", "training.rounds=1", "evaluation.bootstrap=0"])
        == 0
    )
    (mydata / "mydata" / "new_images").mkdir()
    with np.load(mydata / "mydata" / "medmnist" / "pneumoniamnist.npz") as file:
        Image.fromarray(file["test_images"][0]).save(mydata / "mydata" / "new_images" / "a.png")
    capsys.readouterr()
    assert predict(ask[1:]) == 0
    assert "a.png" in capsys.readouterr().out


def test_files_and_volumes_are_accepted_as_the_page_shows(mydata: Path) -> None:
    runs = [words[1:] for words in commands(page("own_data")) if words[0] == "run"]
    assert len(runs) == len(python_blocks(page("own_data"))) == 4
    found = {}
    for words in (runs[0], *runs[2:]):
        prepared = prepare(typed(compose_run([*words, "engine=inprocess", "adversary.attack=none"])))
        found[prepared.dataset.name] = prepared
    listed, pictures, volumes = found["imagefolder"], found["radimagenet"], found["msd"]
    assert [hospital.name for hospital in listed.federated.hospitals] == ["north", "south"]
    assert listed.dataset.class_names == ("normal", "nodule")
    assert listed.dataset.group == "patient"
    assert [hospital.name for hospital in pictures.federated.hospitals] == ["north", "south"]
    assert pictures.dataset.class_names == ("mass", "nodule", "normal")
    assert volumes.dataset.class_names == ("background", "organ")
    assert volumes.dataset.train.images.shape[1:] == (1, 24, 24, 24)
