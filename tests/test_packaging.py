"""The wheel carries the library, the programs and the settings; the declared dependencies are those that are used."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hbdp_fed", "simulations", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The built wheel's contents. Built from a copy: setuptools leaves its own files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    # Without isolation the build needs no network: setuptools is in the test extra.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return zipfile.Path(path)


def files_in(wheel: zipfile.Path) -> set[str]:
    return set(wheel.root.namelist())


@pytest.mark.parametrize(
    ("package", "pattern"),
    [("hbdp_fed", "*.py"), ("simulations", "*.py"), ("configs", "*.yaml"), ("hbdp_fed", "*.j2"), ("hbdp_fed", "*.md")],
)
def test_wheel_carries_every_file_of(package: str, pattern: str, wheel: zipfile.Path) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob(pattern)}
    assert expected, f"{package} has no {pattern}"
    missing = expected - files_in(wheel)
    assert not missing, f"missing in the wheel (is there an __init__.py?): {sorted(missing)}"


def test_wheel_carries_nothing_else(wheel: zipfile.Path) -> None:
    heads = {name.split("/")[0] for name in files_in(wheel)}
    assert {head for head in heads if not head.endswith(".dist-info")} == set(PACKAGES)


def test_wheel_declares_the_console_script(wheel: zipfile.Path) -> None:
    (entry_points,) = [name for name in files_in(wheel) if name.endswith(".dist-info/entry_points.txt")]
    parser = ConfigParser()
    parser.read_string(wheel.joinpath(entry_points).read_text())
    assert parser["console_scripts"]["hbdp-fed"] == "simulations.cli:main"


@pytest.mark.slow
def test_the_installed_wheel_runs_where_there_is_no_checkout(wheel: zipfile.Path, tmp_path: Path) -> None:
    """A whole run of the console script, Ray's workers included, that imports nothing from this checkout."""
    installed, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel.root.extractall(installed)
    program = (
        "import sys, hbdp_fed, configs, simulations.cli as cli\n"
        "assert all(m.__file__.startswith(sys.argv[1]) for m in (hbdp_fed, configs, cli)), hbdp_fed.__file__\n"
        "sys.exit(cli.main(sys.argv[2:]))\n"
    )
    settings = "clients=2 data.num_train=40 data.num_val=30 data.num_test=20 training.rounds=1 training.local_steps=1"
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed), "run", *settings.split(), "adversary.bins=16", "run_dir=here"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "here" / "summary.json").exists()
    assert [path.name for path in elsewhere.iterdir()] == ["here"]


def test_console_script_exists() -> None:
    tree = ast.parse((ROOT / "simulations" / "cli.py").read_text(encoding="utf-8"))
    assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def declared_dependencies() -> set[str]:
    """Those of every installation, and those of the extras that users ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [wanted for name, wanted in project["optional-dependencies"].items() if name not in {"test", "dev"}]
    requirements = [*project["dependencies"], *(requirement for wanted in extras for requirement in wanted)]
    return {normalised(re.split(r"[\[<>=! ]", requirement)[0]) for requirement in requirements}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported_libraries() -> set[str]:
    """The top-level modules that the packages import from outside the project and the standard library."""
    heads: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    heads |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    heads.add(node.module.split(".")[0])
    return heads - sys.stdlib_module_names - set(PACKAGES)


def test_every_imported_library_is_declared() -> None:
    distributions = packages_distributions()
    declared = declared_dependencies()
    # Flower's simulation extra brings ray, in the one version that it works with.
    declared.add("ray")
    undeclared = {
        library
        for library in imported_libraries()
        if not declared & {normalised(name) for name in distributions.get(library, [library])}
    }
    assert not undeclared, f"add to the dependencies in pyproject.toml: {sorted(undeclared)}"


def test_constraints_pin_plain_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin), f"not a plain pin: {pin}"


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normalised(line.split("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    assert not declared_dependencies() - pinned
