"""Look over what the project is installed with: pinned versions, licences, the files themselves, known weaknesses.

    make audit

Without a network it checks that every installed distribution has the version that constraints.txt pins, that pip finds
no requirement broken, that every licence goes together with Apache-2.0, and that every installed file is the one that
its wheel held (the hashes of RECORD). With one, pip-audit looks up the pinned versions among the known weaknesses.

The exit code is 0 if nothing was found, 1 if something was, and 3 if nothing was found but the advisories were not
looked up: then nobody knows.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
CLEAN, FOUND, UNKNOWN = 0, 1, 3

NOT_PINNED = {"pip", "hbdp-fed"}
"""What constraints.txt leaves out: the installer, and the project itself."""

ACCEPTED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "LLVM-exception", "MIT",
    "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Licences of libraries that software under Apache-2.0 may import. MPL-2.0 asks for its own files' changes alone."""

SPOKEN = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""From the names of classifiers, and from how authors write a licence, to SPDX's identifiers; BSD where they leave open
which."""


@dataclass(frozen=True)
class Advisories:
    """What pip-audit said.

    Attributes:
        findings: Known weaknesses, and what else has to be judged.
        asked: How many of the pinned versions were looked up.
        problem: Why none was; None if some were.
    """

    findings: Sequence[str]
    asked: int = 0
    problem: str | None = None


def read_pins(path: Path) -> Mapping[str, Version]:
    """By name, the version that constraints.txt pins."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def check_pins(installed: Iterable[Distribution], pins: Mapping[str, Version]) -> Iterator[str]:
    """Which distributions are not those of constraints.txt. A local label, as in ``2.13.0+cpu``, is another build."""
    for one in installed:
        name = canonicalize_name(one.name)
        if name in NOT_PINNED:
            continue
        if name not in pins:
            yield f"{name} {one.version} is installed and not pinned"
        elif Version(Version(one.version).public) != pins[name]:
            yield f"{name} {one.version} is installed, {pins[name]} is pinned"


def licence_of(one: Distribution) -> str:
    """An SPDX expression, or what is said in its place; empty if nothing is."""
    expression = one.metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = one.metadata.get_all("Classifier") or []
    told = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved :: ")]
    if told:
        return " OR ".join(SPOKEN.get(name, name) for name in told)
    # Some put the whole text there.
    line = str(one.metadata.get("License") or "").strip().partition("\n")[0]
    return SPOKEN.get(line, line)


def is_accepted(expression: str) -> bool:
    """Whether all licences of one alternative are accepted."""
    alternatives = [re.split(r"\s+(?:AND|WITH)\s+", part.strip(" ()")) for part in re.split(r"\s+OR\s+", expression)]
    if "(" in expression:  # what belongs to which alternative is not worked out: all have to be accepted
        alternatives = [[name for names in alternatives for name in names]]
    return any(all(name.strip(" ()") in ACCEPTED for name in names) for names in alternatives)


def check_licences(installed: Iterable[Distribution]) -> Iterator[str]:
    """Which distributions tell no licence, or one that has to be judged."""
    for one in installed:
        licence = licence_of(one)
        if not is_accepted(licence):
            yield f"{one.name} {one.version}: licence {licence or 'not told'}"


def check_files(installed: Iterable[Distribution]) -> Iterator[str]:
    """Which installed files are gone or are not those of the wheel, and which distributions list none."""
    for one in installed:
        # Not one.files: newer versions of importlib.metadata leave out the files that are gone.
        record = csv.reader((one.read_text("RECORD") or "").splitlines())
        hashed = [(line[0], *line[1].split("=", 1)) for line in record if len(line) > 1 and "=" in line[1]]
        if not hashed:
            yield f"{one.name} {one.version}: lists no files with their hashes"
        for file, mode, value in hashed:
            path = Path(str(one.locate_file(file)))
            if not path.is_file():
                yield f"{one.name} {one.version}: {file} is missing"
                continue
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, mode).digest()
            if urlsafe_b64encode(digest).rstrip(b"=").decode() != value:
                yield f"{one.name} {one.version}: {file} was changed"


def check_requirements() -> Iterator[str]:
    """What pip says is missing or does not fit."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if done.returncode:
        yield from (done.stdout or done.stderr).strip().splitlines()


def ask_advisories(constraints: Path, timeout_s: int) -> Advisories:
    """Look the pinned versions up."""
    if importlib.util.find_spec("pip_audit") is None:
        return Advisories((), problem="pip-audit is not installed (pip install -c constraints.txt -e '.[audit]')")
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip",
        "--format", "json", "--progress-spinner", "off", "--timeout", str(timeout_s),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return understood(done.stdout)


def understood(output: str) -> Advisories:
    """What pip-audit's JSON says.

    Where its service knows none of the packages it counts them as skipped, and says itself that no weakness was found.
    """
    try:
        told: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Advisories((), problem="the advisory service cannot be reached")
    skipped = [one for one in told if "skip_reason" in one]
    if len(skipped) == len(told):
        return Advisories((), problem="the advisory service answers and knows none of the packages")
    findings = [f"{one['name']}: could not be looked up" for one in skipped]
    for one in told:
        for weakness in one.get("vulns", ()):
            fixed = ", ".join(weakness.get("fix_versions", ())) or "no version yet"
            findings.append(f"{one['name']} {one['version']}: {weakness['id']}, fixed in {fixed}")
    return Advisories(findings, asked=len(told) - len(skipped))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="do not ask for advisories; the exit code says so")
    parser.add_argument("--timeout", type=int, default=15, help="seconds to wait for an answer of the service")
    options = parser.parse_args(arguments)
    constraints = ROOT / "constraints.txt"
    installed = sorted(distributions(), key=lambda one: one.name.lower())
    checks: dict[str, Sequence[str]] = {
        "versions that are not the pinned ones": list(check_pins(installed, read_pins(constraints))),
        "requirements that pip finds broken": list(check_requirements()),
        "licences to be judged": list(check_licences(installed)),
        "files that are not those of their wheels": list(check_files(installed)),
    }
    advisories = (
        Advisories((), problem="not asked: --offline")
        if options.offline
        else ask_advisories(constraints, options.timeout)
    )
    print(f"{len(installed)} installed distributions")
    if advisories.problem is None:
        checks[f"known weaknesses, of {advisories.asked} pinned versions that were looked up"] = advisories.findings
    for title, findings in checks.items():
        print(f"{title}: {len(findings)}")
        for finding in findings:
            print(f"    {finding}")
    if advisories.problem is not None:
        print(f"advisories were not looked up: {advisories.problem}. Whether a weakness is known stays open.")
    if any(checks.values()):
        return FOUND
    return CLEAN if advisories.problem is None else UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
