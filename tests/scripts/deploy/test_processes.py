"""Real processes on this machine: intruders, kills and restarts. They take minutes, so they are slow tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.server_folder import ServerFolder
from hbdp_fed.federation.site_folder import write_policy
from hbdp_fed.privacy.ledger import verify
from scripts.deploy.federation import Federation, found
from scripts.deploy.keys import make_authority, make_hospital_key
from scripts.deploy.processes import flower_environment
from scripts.deploy.rehearse import POLICY, rehearse
from scripts.deploy.server import free_port
from simulations.compose import compose_run, typed
from simulations.deployment import charter_of
from simulations.execute import app_settings
from simulations.prepare import prepare
from simulations.run import main as simulate
from simulations.run_folder import read_summary

pytestmark = pytest.mark.slow

SMALL = [
    "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40", "model.width=4", "training.local_steps=2",
    "training.expected_batch=8", "evaluation.bootstrap=0", "adversary.attack=none",
]  # fmt: skip


CANARY = "DOE^JANE mrn-4711"
"""A patient's name, as it stands in many hospitals' paths."""


@contextmanager
def standing(folder: Path, settings: Sequence[str]) -> Iterator[Federation]:
    """A federation whose processes run, with the hospitals' own folders where a patient's name is in the path."""
    federation = found(folder, settings, replace(POLICY, lowest_records=1))
    for hospital in federation.hospitals:
        place = folder.parent / "archive" / CANARY / hospital.name
        place.parent.mkdir(parents=True, exist_ok=True)
        hospital.site.path.rename(place)
        hospital.site.path.symlink_to(place)
    try:
        federation.start()
        yield federation
    finally:
        federation.stop()


@contextmanager
def begun(federation: Federation, settings: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run on it, in a process of its own."""
    run_dir = f"run_dir={federation.folder / 'run'}"
    command = [sys.executable, "-m", "simulations.run", *settings, *federation.settings, run_dir]
    with (federation.folder / "run.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait(until: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def events(federation: Federation) -> list[dict[str, Any]]:
    folders = list(federation.server.federations.glob("run-*"))
    return [line for _, line in ServerFolder(folders[0]).lines()] if folders else []


def in_round(federation: Federation, number: int) -> Callable[[], bool]:
    """Whether a round has begun, and no later one."""
    return lambda: any(line["kind"] == "round" and line["round"] == number - 1 for line in events(federation))


def charged(federation: Federation, name: str) -> tuple[int, int]:
    """Rounds and steps in a hospital's own ledger."""
    (file,) = (federation.folder / name / "site" / "agreements").glob("*/ledger.jsonl")
    account = verify(file).accounts[name]
    return account.rounds, account.steps_spent


def test_the_rehearsal_is_the_simulation(tmp_path: Path) -> None:
    assert rehearse([*SMALL[1:-1], "training.rounds=2"], tmp_path / "federation") == 0


def test_intruders_are_turned_away_and_change_nothing(tmp_path: Path) -> None:
    settings = [*SMALL, "clients=2", "training.rounds=3"]
    with standing(tmp_path / "federation", settings) as federation, begun(federation, settings) as process:
        wait(in_round(federation, 1))
        server, log = federation.server, federation.server.process.log_file
        make_hospital_key(tmp_path / "unknown")
        make_authority(tmp_path / "other")
        known = federation.folder / "hospital-01" / "supernode.key"
        trusted = ["--root-certificates", str(server.authority / "ca.pem")]
        foreign = ["--root-certificates", str(tmp_path / "other" / "ca.pem")]
        for name, arguments, at_home, at_the_server in (
            ("no key", trusted, "must be registered", "/v1/fleet/register-node of 127.0.0.1"),
            (
                "an unknown key",
                [*trusted, "--auth-supernode-private-key", str(tmp_path / "unknown" / "supernode.key")],
                "Failed to activate SuperNode",
                "/v1/fleet/activate-node of 127.0.0.1",
            ),
            (
                "another authority",
                [*foreign, "--auth-supernode-private-key", str(known)],
                "CERTIFICATE_VERIFY_FAILED",
                "a connection of 127.0.0.1: TLSV1_ALERT_UNKNOWN_CA",
            ),
            ("no TLS", ["--insecure"], "disconnected", "a connection of 127.0.0.1: HTTP_REQUEST"),
        ):
            before = log.stat().st_size
            told = _intrude(arguments, server.port, tmp_path / "intruder", until=at_home)
            assert at_home in told, name
            assert f"turned away: {at_the_server}" in log.read_bytes()[before:].decode(), name
        assert process.wait(timeout=300) == 0
    assert simulate([*settings, "engine=inprocess", f"run_dir={tmp_path / 'simulation'}"]) == 0
    left, right = read_summary(tmp_path / "federation" / "run"), read_summary(tmp_path / "simulation")
    assert left["model_sha256"] == right["model_sha256"]
    assert left["ledger"] == right["ledger"]
    # Neither the processes' logs nor messages, databases, journals, checkpoints or reports tell the patient's name.
    found_in = [
        file
        for root in (tmp_path / "federation", tmp_path / "archive" / CANARY)
        for file in root.rglob("*")
        if file.is_file() and any(word.encode() in file.read_bytes() for word in CANARY.split())
    ]
    assert found_in == []


def _intrude(arguments: Sequence[str], port: int, home: Path, *, until: str) -> str:
    """What a SuperNode prints that tries to come in."""
    command = [
        str(Path(sys.executable).parent / "flower-supernode"), "--superlink", f"127.0.0.1:{port}", *arguments,
        "--max-retries", "2", "--host", "127.0.0.1", "--port", str(free_port()),
    ]  # fmt: skip
    home.mkdir(exist_ok=True)
    output = home / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **flower_environment(home)}, start_new_session=True
        )
        try:
            wait(lambda: until.encode() in output.read_bytes(), seconds=60)
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    return output.read_text()


def test_a_malicious_server_gets_nothing_and_its_code_runs_at_no_hospital(tmp_path: Path) -> None:
    settings = [*SMALL, "clients=1", "training.rounds=2"]
    app = tmp_path / "app"
    app.mkdir()
    (app / "malicious.py").write_text((Path(__file__).parent / "malicious.py").read_text())
    (app / "pyproject.toml").write_text(_MALICIOUS)
    with standing(tmp_path / "federation", settings) as federation:
        (hospital,) = federation.hospitals
        connection, told_file = federation.server.connection, federation.server.federations / "told.json"
        charter = charter_for(settings)
        connection.submit(charter, app=app)
        wait(told_file.exists)
        time.sleep(1)
        told = json.loads(told_file.read_text())
        # The same at another budget: above what the hospital allows.
        write_policy(hospital.site.policy_file, replace(POLICY, lowest_records=1, highest_epsilon=8.0))
        told_file.unlink()
        connection.submit(replace(charter, name="greedy"), app=app)
        wait(told_file.exists)
        time.sleep(1)
        greedy = json.loads(told_file.read_text())
    assert "the plan has rounds 1 to 2" in told["a round beyond the plan"]
    assert "it asks for 20 steps" in told["more steps"]
    assert "another mlp than the charter's cnn" in told["an unlisted model"]
    assert "tampered with: the weights before the first round" in told["a tampered model"]
    assert told["the round as planned"] == "answered"
    assert "tampered with" in told["the round again, with other weights"]
    assert all("above the ceiling of 8" in reason for reason in greedy.values())
    assert not (hospital.site.path / "taken-over").exists()
    log = hospital.site.log_file.read_text()
    assert log.count("REFUSED") == 5 + len(greedy)
    spent = [
        verify(file).accounts[hospital.name].steps_spent for file in hospital.site.agreements.glob("*/ledger.jsonl")
    ]
    assert sorted(spent) == [0, 2]


def charter_for(settings: Sequence[str]) -> Charter:
    """What a run of these settings would ask real hospitals to agree to."""
    prepared = prepare(typed(compose_run(list(settings))))
    return charter_of(prepared, app_settings(prepared, None))


_MALICIOUS = """
[project]
name = "malicious"
version = "1.0.0"
description = ""
license = "Apache-2.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "malicious:server"
clientapp = "malicious:hospital"

[tool.flwr.app.config]
charter = ""
"""


def test_kills_lose_no_round_and_charge_nobody_twice(tmp_path: Path) -> None:
    rounds = 6
    settings = [
        *SMALL, "clients=3", f"training.rounds={rounds}", "federation.on_failure=tolerate",
        "federation.round_timeout_s=200", "privacy.secure_noise=true",
    ]  # fmt: skip
    with standing(tmp_path / "federation", settings) as federation, begun(federation, settings) as process:
        victim = federation.hospitals[1]
        wait(in_round(federation, 2))
        # In the middle of the round: it has the question, and has not answered.
        wait(lambda: b"ROUND 2" in victim.process.log_file.read_bytes())
        victim.stop(kill=True)
        federation.start_hospital(victim)
        wait(in_round(federation, 4))
        federation.server.stop(kill=True)
        time.sleep(2)
        federation.server.start()
        assert process.wait(timeout=600) == 0
        own = {hospital.name: charged(federation, hospital.name) for hospital in federation.hospitals}
    run = tmp_path / "federation" / "run"
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    statuses = Counter((line["hospital"], line["status"]) for line in lines)
    summary = read_summary(run)
    told = verify(run / "ledger.jsonl").accounts
    for name, (own_rounds, own_steps) in own.items():
        assert own_steps == 2 * own_rounds <= 2 * rounds
        assert statuses[name, "ok"] <= own_rounds
        assert told[name].steps_spent >= own_steps
    assert {line["round"] for line in lines if line["status"] == "ok"} == set(range(1, rounds + 1))
    assert summary["participation"]["completed"] == sum(n for (_, status), n in statuses.items() if status == "ok")
    assert summary["participation"]["expected"] + summary["participation"]["offline"] == 3 * rounds
