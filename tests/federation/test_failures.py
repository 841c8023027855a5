"""What goes wrong at a hospital or on its way: named, kept out of the model, and survived where that is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hbdp_fed.errors import HospitalFailure, QuorumLost
from hbdp_fed.federation.aggregation import AggregationSettings, combine
from hbdp_fed.federation.engine import Simulated
from hbdp_fed.federation.faults import FAULTS, NEED_PROCESSES, Fault
from hbdp_fed.federation.rounds import participants
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.models import weights_sha256
from hbdp_fed.types import Weights
from tests.federation.test_federation import probe

NAMED = {
    "exception": "exception",
    "timeout": "timeout",
    "killed": "lost",
    "not_a_number": "not_finite",
    "infinite": "not_finite",
    "wrong_shape": "wrong_shape",
    "wrong_dtype": "wrong_dtype",
    "oversize": "oversize",
    "empty": "empty",
    "duplicate": "duplicate",
}
SURVIVED = sorted(set(FAULTS) - set(NEED_PROCESSES) - {"duplicate"})


def with_faults(settings: AppSettings, *faults: Fault, on_failure: str = "tolerate", quorum: int = 1) -> AppSettings:
    return replace(settings, faults=faults, on_failure=on_failure, min_hospitals=quorum)  # type: ignore[arg-type]


def without_second(settings: AppSettings, run) -> Weights:
    """The model of a federation in which hospital-02 takes no part in round 1, worked out from its own updates."""
    whole = run(settings)
    start, updates = whole.weights[0], [u for u in whole.updates[1] if u.hospital != "hospital-02"]
    total = sum(update.num_records for update in updates)
    return {name: start[name] + sum(u.delta[name] * u.num_records / total for u in updates) for name in start}


def test_every_fault_has_a_name() -> None:
    assert set(NAMED) == set(FAULTS)


@pytest.mark.parametrize("kind", SURVIVED)
def test_a_tolerated_failure_is_named_and_the_others_make_the_model(settings, run, kind: str) -> None:
    expected = without_second(settings, run)
    witness = run(with_faults(settings, Fault("hospital-02", 1, kind)))
    assert [(f.hospital, f.round, f.kind) for f in witness.failures] == [("hospital-02", 1, NAMED[kind])]
    assert [update.hospital for update in witness.updates[1]] == ["hospital-01", "hospital-03"]
    for name, value in expected.items():
        torch.testing.assert_close(witness.weights[1][name], value, rtol=0, atol=1e-12)
    # It is back in the next round.
    assert [update.hospital for update in witness.updates[2]] == list(settings.hospitals)


@pytest.mark.parametrize("kind", SURVIVED)
def test_where_failures_are_not_tolerated_the_first_one_ends_the_run(settings, run, kind: str) -> None:
    with pytest.raises(HospitalFailure) as failure:
        run(with_faults(settings, Fault("hospital-02", 1, kind), on_failure="abort"))
    assert failure.value.hospital == "hospital-02"


def test_an_answer_that_comes_twice_counts_once(settings, run) -> None:
    plain = run(settings)
    witness = run(with_faults(settings, Fault("hospital-02", 1, "duplicate")))
    assert weights_sha256(witness.final) == weights_sha256(plain.final)
    assert [(f.hospital, f.round, f.kind) for f in witness.failures] == [("hospital-02", 1, "duplicate")]


def test_too_few_answers_end_the_run_after_all_of_them_were_heard(settings, run) -> None:
    faulty = with_faults(settings, Fault("hospital-01", 2, "exception"), Fault("hospital-03", 2, "empty"), quorum=2)
    with pytest.raises(QuorumLost, match=r"round 2: only 1 of the 3 hospitals .* asks for 2"):
        run(faulty)
    assert run(replace(faulty, min_hospitals=1)).weights[2]


def test_a_hospital_that_fails_in_a_probe_is_left_out_of_it(settings, run) -> None:
    witness = run(with_faults(settings, Fault("hospital-01", 3, "exception")), probes=[probe(3)])
    assert [update.hospital for update in witness.probed[3]] == ["hospital-02", "hospital-03"]
    assert witness.answered_probes == [3]


@pytest.mark.parametrize("fraction", [0.3, 0.67, 1.0])
def test_a_round_asks_the_share_of_hospitals_that_everybody_planned_with(settings, run, fraction: float) -> None:
    witness = run(replace(settings, participation=fraction))
    for number, updates in witness.updates.items():
        planned = participants(settings.seed, number, settings.hospitals, fraction)
        assert [update.hospital for update in updates] == list(planned)
        assert len(updates) == round(3 * fraction)


def test_who_is_asked_changes_from_round_to_round_and_everybody_gets_a_turn() -> None:
    names = [f"h{place}" for place in range(20)]
    rounds = [tuple(participants(0, number, names, 0.25)) for number in range(1, 200)]
    assert len(set(rounds)) > 100
    counts = {name: sum(name in asked for asked in rounds) for name in names}
    assert all(5 == len(asked) == len(set(asked)) and list(asked) == sorted(asked, key=names.index) for asked in rounds)
    # 199 rounds of a quarter: 49.75 with a standard deviation of about 6.
    assert 25 < min(counts.values()) <= max(counts.values()) < 75


@pytest.mark.parametrize("name", ["median", "krum"])
def test_robust_rules_are_applied_to_what_travelled(settings, run, name: str) -> None:
    rule = AggregationSettings(name, byzantine=0)
    witness = run(replace(settings, aggregation=rule))
    expected = combine(witness.updates[1], rule, {})
    for key, value in witness.weights[1].items():
        torch.testing.assert_close(value, witness.weights[0][key] + expected[key], rtol=0, atol=1e-15)


def test_a_federation_goes_on_from_where_an_earlier_one_stood(settings, run) -> None:
    whole = run(settings)
    first = Simulated.fresh(settings)
    run(replace(settings, rounds=1, local=settings.local), simulated=first)
    again = Simulated.fresh(settings)
    again.restore(first.to_plain())
    rest = run(settings, start=whole.standings[1], simulated=again)
    assert sorted(rest.standings) == [2]
    assert weights_sha256(rest.final) == weights_sha256(whole.final)
    # What was answered before is refused: the hospitals' own ledgers were carried over.
    with pytest.raises(HospitalFailure, match="round 1 was answered before"):
        run(settings, simulated=again)
