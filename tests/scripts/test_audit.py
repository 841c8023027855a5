"""The audit of what is installed finds what is not as it should be, and never takes silence for a clean bill."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.version import Version


@pytest.fixture
def audit() -> ModuleType:
    return import_module("scripts.audit")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of what pip installed from a wheel, with the hashes that the wheel came with."""
    one = distribution("iniconfig")
    for file in one.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), tmp_path / file)
    return tmp_path


def made(folder: Path, name: str, version: str, *lines: str) -> Distribution:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]))
    return next(iter(distributions(name=name, path=[str(folder)])))


def found(audit: ModuleType, check: str, folder: Path) -> list[str]:
    return list(getattr(audit, check)(distributions(path=[str(folder)])))


def test_files_as_the_wheel_held_them_pass(audit: ModuleType, installed: Path) -> None:
    assert found(audit, "check_files", installed) == []


def test_a_changed_a_lost_and_an_unlisted_file_are_found(audit: ModuleType, installed: Path) -> None:
    module = installed / "iniconfig" / "__init__.py"
    genuine = module.read_bytes()
    module.write_bytes(bytes([genuine[0] ^ 1]) + genuine[1:])
    [changed] = found(audit, "check_files", installed)
    assert changed.endswith(": iniconfig/__init__.py was changed")
    module.unlink()
    [gone] = found(audit, "check_files", installed)
    assert gone.endswith(": iniconfig/__init__.py is missing")
    module.write_bytes(genuine)
    next(installed.glob("*.dist-info/RECORD")).write_text("")
    [unlisted] = found(audit, "check_files", installed)
    assert unlisted.endswith(": lists no files with their hashes")


def test_versions_that_are_not_pinned_are_found(audit: ModuleType, tmp_path: Path) -> None:
    made(tmp_path, "Some.Thing", "1.0")
    made(tmp_path, "other", "2.13.0+cpu")
    made(tmp_path, "pip", "1")
    pins = tmp_path / "constraints.txt"
    pins.write_text("# how to renew them\nsome_thing==1.0\nother==2.13.0\n")
    read = audit.read_pins(pins)
    assert read == {"some-thing": Version("1.0"), "other": Version("2.13.0")}
    assert list(audit.check_pins(distributions(path=[str(tmp_path)]), read)) == []
    pins.write_text("other==2.14.0\n")
    assert sorted(audit.check_pins(distributions(path=[str(tmp_path)]), audit.read_pins(pins))) == [
        "other 2.13.0+cpu is installed, 2.14.0 is pinned",
        "some-thing 1.0 is installed and not pinned",
    ]


@pytest.mark.parametrize(
    ("lines", "licence", "accepted"),
    [
        (["License-Expression: Apache-2.0 OR BSD-3-Clause"], "Apache-2.0 OR BSD-3-Clause", True),
        (["License-Expression: GPL-3.0-only OR MIT"], "GPL-3.0-only OR MIT", True),
        (["License-Expression: GPL-3.0-only AND MIT"], "GPL-3.0-only AND MIT", False),
        (["License-Expression: MIT AND (GPL-3.0-only OR MIT)"], "MIT AND (GPL-3.0-only OR MIT)", False),
        (["License-Expression: Apache-2.0 WITH LLVM-exception"], "Apache-2.0 WITH LLVM-exception", True),
        (["License: Copyright me", "Classifier: License :: OSI Approved :: BSD License"], "BSD", True),
        (["License: Apache License 2.0"], "Apache-2.0", True),
        (["License: AGPL-3.0"], "AGPL-3.0", False),
        (["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], None, False),
        (["Classifier: Programming Language :: Python"], "", False),
        ([], "", False),
    ],
)
def test_a_licence_is_read_and_judged(
    audit: ModuleType, tmp_path: Path, lines: list[str], licence: str | None, accepted: bool
) -> None:
    one = made(tmp_path, "thing", "1", *lines)
    if licence is not None:
        assert audit.licence_of(one) == licence
    told = list(audit.check_licences([one]))
    assert told == ([] if accepted else [f"thing 1: licence {audit.licence_of(one) or 'not told'}"])


LOOKED_UP = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not there"}
WEAK = {"name": "c", "version": "3", "vulns": [{"id": "CVE-1", "fix_versions": ["4", "5"]}, {"id": "CVE-2"}]}


@pytest.mark.parametrize(
    ("dependencies", "findings", "asked"),
    [
        ([LOOKED_UP], [], 1),
        ([LOOKED_UP, SKIPPED], ["b: could not be looked up"], 1),
        ([LOOKED_UP, WEAK], ["c 3: CVE-1, fixed in 4, 5", "c 3: CVE-2, fixed in no version yet"], 2),
    ],
)
def test_what_is_known_of_a_version_is_told(
    audit: ModuleType, dependencies: list[Any], findings: list[str], asked: int
) -> None:
    told = audit.understood(json.dumps({"dependencies": dependencies, "fixes": []}))
    assert (list(told.findings), told.asked, told.problem) == (findings, asked, None)


@pytest.mark.parametrize("output", ["", "Traceback", "[]", "{}", json.dumps({"dependencies": [SKIPPED, SKIPPED]})])
def test_an_answer_that_says_nothing_of_any_version_is_no_clean_bill(audit: ModuleType, output: str) -> None:
    told = audit.understood(output)
    assert told.asked == 0
    assert told.problem.startswith("the advisory service")


@pytest.mark.parametrize(
    ("vulnerabilities", "changed", "code"),
    [([], False, 0), ([{"id": "CVE-1", "fix_versions": []}], False, 1), (None, False, 3), (None, True, 1)],
)
def test_the_exit_code_tells_clean_from_found_and_from_unknown(
    audit: ModuleType,
    installed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    vulnerabilities: list[Any] | None,
    changed: bool,
    code: int,
) -> None:
    if changed:
        (installed / "iniconfig" / "__init__.py").write_text("")
    answer = "" if vulnerabilities is None else json.dumps({"dependencies": [{**LOOKED_UP, "vulns": vulnerabilities}]})
    monkeypatch.setattr(audit, "distributions", lambda: distributions(path=[str(installed)]))
    monkeypatch.setattr(audit, "check_requirements", lambda: iter(()))
    monkeypatch.setattr(audit, "ask_advisories", lambda constraints, timeout_s: audit.understood(answer))
    assert audit.main([]) == code
    told = capsys.readouterr().out
    assert ("the advisory service cannot be reached. Whether a weakness is known stays open" in told) == (
        vulnerabilities is None
    )
    assert ("iniconfig/__init__.py was changed" in told) == changed
