"""SCAFFOLD in a federation: what travels, what each side keeps, and that lost answers leave both sides agreed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from hbdp_fed.federation.codec import Control, TrainRequest, parse_request, request_messages
from hbdp_fed.federation.control import HospitalControl
from hbdp_fed.federation.engine import Simulated
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.rounds import participants
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.wire import from_arrays
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, ScheduleSettings
from hbdp_fed.types import ModelSpec, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
ROUNDS = 5
Runner = Callable[..., Any]


def corrected(settings: AppSettings, *faults: Fault, **changes: Any) -> AppSettings:
    """Five rounds of momentum under a schedule, so that no two rounds' gradients weigh the same."""
    sites = tuple(
        replace(site, plan=replace(site.plan, mechanism=replace(site.plan.mechanism, steps=100)))
        for site in settings.sites
    )
    local = LocalSettings(OptimizerSettings("sgd", 0.1, 0.9), ScheduleSettings("cosine"), correction="scaffold")
    failing = "tolerate" if faults else "abort"
    return replace(settings, sites=sites, rounds=ROUNDS, local=local, faults=faults, on_failure=failing, **changes)


def shares_of(settings: AppSettings) -> Mapping[str, float]:
    records = {site.plan.name: site.plan.num_records for site in settings.sites}
    return {name: count / sum(records.values()) for name, count in records.items()}


def kept(simulated: Simulated, settings: AppSettings, lost: Mapping[str, int]) -> dict[str, Weights]:
    """The control variate that each hospital would take in the next round; those that have none are left out."""
    found = {}
    for name, state in zip(settings.hospitals, simulated.states, strict=True):
        if "control" not in state.array_records:
            continue
        back = lost.get(name) == state.config_records["control-round"]["round"]
        arrays = state.array_records.get("control-before" if back else "control")
        if arrays is not None:
            found[name] = from_arrays(arrays)
    return found


def assert_agreed(simulated: Simulated, settings: AppSettings, control: Weights) -> None:
    """The server's c is the weighted mean of what the hospitals keep."""
    lost = {key.removeprefix("lost."): int(value) for key, value in control.items() if key.startswith("lost.")}
    own, shares = kept(simulated, settings, lost), shares_of(settings)
    assert own
    for key, value in control.items():
        if key.startswith("c."):
            mean = sum((shares[name] * each[key.removeprefix("c.")] for name, each in own.items()), torch.zeros(()))
            torch.testing.assert_close(value, mean, rtol=1e-9, atol=1e-12)


def test_the_first_round_is_that_of_plain_averaging_to_the_last_bit_and_the_second_is_not(settings, run) -> None:
    asked = corrected(settings)
    plain = run(replace(asked, local=replace(asked.local, correction="none")))
    found = run(asked)
    assert weights_sha256(found.weights[1]) == weights_sha256(plain.weights[1])
    assert weights_sha256(found.weights[2]) != weights_sha256(plain.weights[2])
    assert plain.standings[2].control == {}


def test_both_sides_read_the_same_out_of_the_updates_alone(settings, run) -> None:
    """Written out from what travelled, by the paper's option II with the weights of momentum's gradients."""
    asked = corrected(settings)
    simulated = Simulated.fresh(asked)
    witness = run(asked, simulated=simulated)
    shares = shares_of(asked)
    c = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in witness.final.items()}
    own = dict.fromkeys(asked.hospitals, c)
    for number in range(1, ROUNDS + 1):
        progress = [((number - 1) * 3 + step) / 15 for step in range(3)]
        rates = [0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2) for share in progress]
        # The first gradient moves the weights in all three steps, the last one in one.
        weight = rates[0] + rates[1] * 1.9 + rates[2] * 2.71
        new = {
            update.hospital: {key: own[update.hospital][key] - c[key] - update.delta[key] / weight for key in c}
            for update in witness.updates[number]
        }
        c = {
            key: value + sum((shares[h] * (new[h][key] - own[h][key]) for h in new), torch.zeros(()))
            for key, value in c.items()
        }
        own = {**own, **new}
        for key, value in c.items():
            torch.testing.assert_close(witness.standings[number].control["c." + key], value, rtol=1e-8, atol=1e-11)
    for name, value in kept(simulated, asked, {}).items():
        for key in c:
            torch.testing.assert_close(value[key], own[name][key], rtol=1e-8, atol=1e-11)
    assert_agreed(simulated, asked, witness.standings[ROUNDS].control)


@pytest.mark.parametrize(
    "faults",
    [
        # Before there is anything to go back to, in the middle, and at the very end.
        [("hospital-01", 1, "empty"), ("hospital-02", 3, "oversize"), ("hospital-03", 5, "empty")],
        # Twice and then used; by a hospital that raises when it has renewed what it keeps.
        [("hospital-01", 2, "empty"), ("hospital-01", 3, "wrong_dtype"), ("hospital-03", 4, "exception")],
    ],
)
def test_lost_answers_leave_the_mean_the_mean_of_what_the_hospitals_go_on_with(settings, run, faults) -> None:
    asked = corrected(settings, *(Fault(*fault) for fault in faults))
    simulated = Simulated.fresh(asked)
    witness = run(asked, simulated=simulated)
    assert [(f.hospital, f.round, f.kind) for f in witness.failures] == sorted(faults, key=lambda fault: fault[1])
    assert_agreed(simulated, asked, witness.standings[ROUNDS].control)


def test_an_answer_that_comes_twice_is_not_lost(settings, run) -> None:
    plain = run(corrected(settings))
    witness = run(corrected(settings, Fault("hospital-02", 2, "duplicate")))
    assert weights_sha256(witness.final) == weights_sha256(plain.final)


def test_only_the_round_that_was_lost_is_taken_back() -> None:
    """A process that was killed has renewed nothing in its last round, and takes nothing back."""
    c = {"w": torch.tensor([10.0], dtype=torch.float64)}

    def added(state: RecordDict, **lost: int) -> float:
        return float(HospitalControl.begun(state, Control(c, lost), hospital="h").added["w"])

    state = RecordDict()
    assert added(state) == added(state, h=1) == 10
    # Kept: 4 / 2 - 10 = -8, and then, with 18 added, 6 / 2 - 18 = -15.
    for number, change in ((1, -4.0), (2, -6.0)):
        control = HospitalControl.begun(state, Control(c, {}), hospital="h")
        delta = {"w": torch.tensor([change], dtype=torch.float64)}
        control.keep(state, delta, round=number, weight=2.0, may_be_lost=True)
    assert added(state) == added(state, h=3) == added(state, other=2) == 25
    assert added(state, h=2) == 18


def test_some_of_the_hospitals_move_the_mean_by_their_part(settings, run) -> None:
    asked = corrected(settings, participation=0.67)
    simulated = Simulated.fresh(asked)
    witness = run(asked, simulated=simulated)
    assert {len(participants(0, n, asked.hospitals, 0.67)) for n in range(1, ROUNDS + 1)} == {2}
    assert_agreed(simulated, asked, witness.standings[ROUNDS].control)


def test_a_probe_is_answered_without_correction_and_leaves_no_trace(settings, run) -> None:
    weights = initial_weights(build_model(SPEC), generator(1, "probe"))
    request = TrainRequest(round=ROUNDS + 1, steps=1, architecture=SPEC, weights=weights)
    asked = corrected(settings)
    plain = run(replace(asked, local=replace(asked.local, correction="none")), probes=[request])
    simulated = Simulated.fresh(asked)
    witness = run(asked, simulated=simulated, probes=[request])
    for own, other in zip(witness.probed[ROUNDS + 1], plain.probed[ROUNDS + 1], strict=True):
        assert weights_sha256(own.delta) == weights_sha256(other.delta)
    assert_agreed(simulated, asked, witness.standings[ROUNDS].control)


def test_what_the_server_adds_travels_and_a_plain_request_has_none_of_it() -> None:
    weights = {"w": torch.rand(3)}
    control = Control({"w": torch.rand(3, dtype=torch.float64)}, {"hospital-02": 7})
    request = TrainRequest(round=8, steps=2, architecture=SPEC, weights=weights, control=control)
    [message] = request_messages(request, [5])
    found = parse_request(message).control
    assert found is not None
    assert torch.equal(found.c["w"], control.c["w"])
    assert found.lost == {"hospital-02": 7}
    [plain] = request_messages(replace(request, control=None), [5])
    assert parse_request(plain).control is None
    assert set(plain.content) == {"arrays", "config"}
