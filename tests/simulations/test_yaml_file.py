"""YAML of others is read as plain values or refused, and never harms whoever reads it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from simulations.yaml_file import DEEPEST, LARGEST, YamlProblem, parse_yaml, read_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


def test_what_is_written_is_read() -> None:
    value = {"a": [1, 2.5, None, True, "text", "1e-5"], "b": {"c": "\N{GREEK SMALL LETTER EPSILON}"}, "d": []}
    assert parse_yaml(yaml.safe_dump(value)) == value


def test_aliases_and_merged_mappings_are_read() -> None:
    text = "gpu: &gpu {watts: 300}\nhospitals: [{name: a, <<: *gpu}, {name: b, more: *gpu}]"
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, f"with all that its aliases repeat, more than {LARGEST} letters"),
        ("a: " + "x" * LARGEST, "is too large"),
        ("[" * 100_000, f"is nested more than {DEEPEST} deep"),
        ("- " * 20_000 + "a", f"is nested more than {DEEPEST} deep"),
        ("a: &a [*a]", r"\*a, which stands for nothing before it, or for itself"),
        ("a: &a {<<: *a}", r"\*a, which stands for nothing before it, or for itself"),
        ("a: *b", r"\*b, which stands for nothing"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!python/name:os.system ''", "could not determine a constructor"),
        ("a: !!bool x", "is not YAML"),
        ("a: !!int ''", "is not YAML"),
        ("a: 2020-99-99", "is not YAML: month"),
        ("a: " + "1" * 5000, "is not YAML: Exceeds the limit"),
        ("a: \0", "control characters are not allowed"),
        ("a: \ud800", "surrogates not allowed"),
        ("a: [", "is not YAML"),
        ("--- a\n--- b", "expected a single document"),
    ],
)
def test_what_could_do_harm_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(YamlProblem, match=problem) as found:
        parse_yaml(text)
    assert "\n" not in str(found.value)


def test_a_file_that_is_no_text_or_too_long_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(YamlProblem, match="is no text in UTF-8"):
        read_yaml(path)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(YamlProblem, match=f"more than {LARGEST} bytes"):
        read_yaml(path)


@pytest.mark.parametrize("program", ["runs", pytest.param("compare", marks=pytest.mark.slow)])
def test_a_settings_file_that_would_end_the_parsers_process_is_told_of(program: str, tmp_path: Path) -> None:
    """In a process of its own: the parser that is written in C runs out of stack, which no exception tells."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("[" * 100_000)
    (tmp_path / "run" / "summary.json").write_text("{}")
    arguments = {"runs": ["."], "compare": ["run", "run"]}[program]
    command = [sys.executable, "-m", f"simulations.{program}", *arguments]
    ended = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == {"runs": 0, "compare": 2}[program]
    assert "Traceback" not in ended.stderr
