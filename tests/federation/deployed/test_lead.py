"""Leading a run from outside: it is started once, started again when it stops, and ends when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from flwr.app import Message

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation import deployed_grid, deployment
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.deployed_server import SERVER_ROOT
from hbdp_fed.federation.deployment import Deployment, lead
from hbdp_fed.federation.follower import Told
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.superlink_client import SuperLinkError
from hbdp_fed.types import Weights
from tests.federation.conftest import ROUNDS, Runner, Witness
from tests.federation.deployed.conftest import POLICY, FlowerStandIn, Hospital, Make
from tests.federation.deployed.test_server import same, serve


@dataclass
class SuperLink:
    """In place of a connection to one: a run that is submitted is a thread here.

    Attributes:
        flower: What the server app finds.
        answers: Whether it can be reached.
        submitted: How many runs were started.
        stopped: Those that were stopped.
    """

    flower: FlowerStandIn
    answers: bool = True
    submitted: int = 0
    stopped: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def submit(self, charter: Charter, *, app: Path) -> str:
        if not self.answers:
            raise SuperLinkError("127.0.0.1:9092 does not answer")
        assert (app / "pyproject.toml").is_file()
        self.submitted += 1
        self.flower.sent.clear()

        def play() -> None:
            with suppress(HospitalFailure, ConnectionError):
                serve(self.flower, charter)

        self.threads.append(threading.Thread(target=play))
        self.threads[-1].start()
        return str(self.submitted)

    def status(self, run_id: str) -> str:
        return "running" if self.threads[int(run_id) - 1].is_alive() else "finished:failed"

    def stop(self, run_id: str) -> None:
        self.stopped.append(run_id)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_ROOT, str(tmp_path / "server"))
    monkeypatch.setattr(deployed_grid, "_POLL_S", 0.0)
    for name, seconds in (("_LOOK_S", 0.01), ("_GONE_S", 0.05), ("_ASK_S", 0.05)):
        monkeypatch.setattr(deployment, name, seconds)


@pytest.fixture
def superlink(hospital: Make) -> SuperLink:
    return SuperLink(FlowerStandIn({100 + place: hospital(place) for place in range(3)}))


Lead = Callable[..., Witness]


@pytest.fixture
def led(tmp_path: Path, superlink: SuperLink, charter: Charter, start: Weights) -> Lead:
    def play(*, witness: Witness | None = None, patience_s: float = 60.0) -> Witness:
        witness = witness or Witness()
        hooks = witness.hooks(())
        try:
            lead(
                charter,
                Deployment(superlink, tmp_path / "server", patience_s),  # type: ignore[arg-type]
                Told(hooks.training, hooks.on_ready, hooks.on_round),
                after=None,
                like=start,
                say=lambda _: None,
            )
        finally:
            for thread in superlink.threads:
                thread.join()
        return witness

    return play


def test_a_run_is_started_once_and_told_to_its_end(
    superlink: SuperLink, led: Lead, settings: AppSettings, run: Runner
) -> None:
    seen = led()
    assert superlink.submitted == 1
    assert same(seen.final, run(settings).final)


def test_a_server_that_was_stopped_is_started_again_where_it_stood(
    superlink: SuperLink, led: Lead, settings: AppSettings, run: Runner
) -> None:
    broken = False

    def breaks_once(message: Message, own: Hospital) -> Message | None:
        nonlocal broken
        if message.metadata.group_id == "2" and not broken:
            broken = True
            raise ConnectionError("the SuperLink is gone")
        return None

    superlink.flower.between = breaks_once
    seen = led()
    assert superlink.submitted == 2
    assert superlink.stopped == ["1"]
    assert sorted(seen.standings) == list(range(ROUNDS + 1))
    assert same(seen.final, run(settings).final)


def test_a_server_that_stops_again_and_again_is_given_up_with_what_stopped_it(superlink: SuperLink, led: Lead) -> None:
    def breaks(message: Message, own: Hospital) -> Message | None:
        if message.metadata.group_id == "2":
            raise ConnectionError("no route to the hospitals")
        return None

    superlink.flower.between = breaks
    with pytest.raises(HospitalFailure, match=r"started 6 times without a round: no route to the hospitals"):
        led()


def test_a_refusal_ends_the_run_and_names_the_hospital(superlink: SuperLink, led: Lead, hospital: Make) -> None:
    superlink.flower.hospitals[101] = hospital(1, policy=replace(POLICY, highest_epsilon=8.0))
    seen = Witness()
    with pytest.raises(HospitalFailure, match="above the ceiling of 8") as error:
        led(witness=seen)
    assert error.value.hospital == "hospital-02"
    assert [failure.kind for failure in seen.failures] == ["refused"]
    assert superlink.submitted == 1


def test_what_an_earlier_attempt_ended_by_is_history(superlink: SuperLink, led: Lead, hospital: Make) -> None:
    superlink.flower.hospitals[101] = hospital(1, policy=replace(POLICY, highest_epsilon=8.0))
    with pytest.raises(HospitalFailure):
        led()
    superlink.flower.hospitals[101] = hospital(1)
    assert sorted(led().standings) == list(range(ROUNDS + 1))


def test_a_server_that_cannot_be_reached_is_waited_for_and_then_named(superlink: SuperLink, led: Lead) -> None:
    superlink.answers = False
    with pytest.raises(HospitalFailure, match=r"the server failed:\n127\.0\.0\.1:9092 does not answer"):
        led(patience_s=0.1)


def test_who_stops_following_stops_the_run(superlink: SuperLink, led: Lead) -> None:
    seen = Witness()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    seen.standings = {}
    original = seen.hooks

    def hooks(probes: object) -> object:
        return replace(original(()), on_round=interrupted)

    seen.hooks = hooks  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        led(witness=seen)
    assert superlink.stopped == ["1"]
