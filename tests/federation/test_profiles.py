"""Planned outages and stragglers: by the seed and by the profile alone, and in the model like a failed answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from scipy.stats import binom

from hbdp_fed.errors import QuorumLost
from hbdp_fed.federation.clock import Attendance, attendance, held_up_by, round_seconds
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.profiles import is_online
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.models import weights_sha256
from hbdp_fed.training.pace import Pace, SiteProfile
from tests.federation.test_failures import with_faults
from tests.federation.test_federation import probe

SOMETIMES = SiteProfile(availability=0.5)
SLOW = SiteProfile(records_per_s=1.0)


def with_profiles(settings: AppSettings, profiles: Mapping[str, SiteProfile], **more: object) -> AppSettings:
    sites = tuple(replace(site, profile=profiles.get(site.plan.name, site.profile)) for site in settings.sites)
    return replace(settings, sites=sites, **more)  # type: ignore[arg-type]


def offline_in(settings: AppSettings, wanted: set[int]) -> AppSettings:
    """The settings under a seed by which hospital-02 is offline in these of the rounds 1 to 3, and in no other one."""

    def rounds(seed: int) -> set[int]:
        there = {n: is_online(SOMETIMES, seed=seed, hospital="hospital-02", number=n) for n in (1, 2, 3)}
        return {number for number, online in there.items() if not online}

    return replace(settings, seed=next(seed for seed in range(100) if rounds(seed) == wanted))


def test_the_clock_adds_up_what_a_round_takes() -> None:
    profile = SiteProfile(records_per_s=100, download_mbit_s=80, upload_mbit_s=16, latency_s=0.5)
    # A million numbers: 32 Mbit at 80 Mbit/s, 64 records x 2 views x 5 steps at 100 a second, 64 Mbit at 16 Mbit/s.
    pace = Pace(profile, records_per_step=128)
    seconds = pace.seconds(parameters=10**6, steps=5, corrected=False)
    assert seconds == pytest.approx(0.5 + 0.4 + 6.4 + 4.0, rel=1e-12)
    # SCAFFOLD's c is another 64 Mbit on the way to the hospital.
    corrected = pace.seconds(parameters=10**6, steps=5, corrected=True)
    assert corrected == pytest.approx(0.5 + 1.2 + 6.4 + 4.0, rel=1e-12)


def test_a_round_lasts_as_long_as_its_slowest_hospital_or_until_the_deadline() -> None:
    seconds = {"a": 2.0, "b": 7.0, "c": 7.0, "d": 9.5}
    assert (round_seconds(seconds, None), held_up_by(seconds, None)) == (9.5, ("d",))
    assert (round_seconds(seconds, 7.0), held_up_by(seconds, 7.0)) == (7.0, ("b", "c", "d"))
    assert (round_seconds(seconds, 8.0), held_up_by(seconds, 8.0)) == (8.0, ("d",))
    assert (round_seconds(seconds, 10.0), held_up_by(seconds, 10.0)) == (9.5, ("d",))
    assert (round_seconds({}, 3.0), held_up_by({}, 3.0)) == (0.0, ())


def test_hospitals_are_offline_as_often_as_their_profile_says() -> None:
    draws = 500

    def outages(seed: int, hospital: str, availability: float) -> list[bool]:
        profile = SiteProfile(availability=availability)
        numbers = range(1, draws + 1)
        return [not is_online(profile, seed=seed, hospital=hospital, number=number) for number in numbers]

    for availability in (0.05, 0.7, 0.95):
        low, high = binom.interval(0.9999, draws, 1 - availability)
        assert low <= sum(outages(0, "a", availability)) <= high
    first, second = outages(0, "a", 0.7), outages(0, "b", 0.7)
    assert first == outages(0, "a", 0.7)
    low, high = binom.interval(0.9999, draws, 0.3 * 0.3)
    assert low <= sum(one and other for one, other in zip(first, second, strict=True)) <= high
    assert outages(1, "a", 0.7) != first
    assert not any(outages(0, "a", 1.0))


def test_who_is_planned_with_is_present_late_or_offline() -> None:
    paces = {name: Pace(SiteProfile(availability=0.5), 1.0) for name in ("a", "b", "c")}
    paces |= {name: Pace(SiteProfile(latency_s=60, availability=0.5), 1.0) for name in ("d", "e", "f")}
    planned = [*"abcdef"]
    for number in range(1, 30):
        found = attendance(
            planned, paces, seed=0, number=number, parameters=10, steps=1, corrected=False, deadline_s=30.0
        )
        assert sorted([*found.present, *found.late, *found.offline]) == planned
        assert set(found.seconds) == {*found.present, *found.late}
        assert set(found.present) <= {*"abc"}
        assert set(found.late) <= {*"def"}
        for name in planned:
            online = is_online(paces[name].profile, seed=0, hospital=name, number=number)
            assert online is (name not in found.offline)
        unlimited = attendance(
            planned, paces, seed=0, number=number, parameters=10, steps=1, corrected=False, deadline_s=None
        )
        assert unlimited.late == ()
        assert unlimited.offline == found.offline


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("records_per_s", 0.0),
        ("download_mbit_s", -1.0),
        ("upload_mbit_s", float("inf")),
        ("latency_s", -0.1),
        ("latency_s", float("nan")),
        ("availability", 0.0),
        ("availability", 1.1),
    ],
)
def test_a_profile_of_no_computer_or_line_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SiteProfile(**{field: value})


def courses(attendances: list[Attendance]) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    return [(found.round, found.offline, found.late) for found in attendances]


def test_an_outage_leaves_the_model_that_a_failed_answer_leaves_to_the_bit(settings, run) -> None:
    seeded = offline_in(settings, {1})
    outage = run(with_profiles(seeded, {"hospital-02": SOMETIMES}))
    failure = run(with_faults(seeded, Fault("hospital-02", 1, "empty")))
    for number in (0, 1, 2):
        assert weights_sha256(outage.weights[number]) == weights_sha256(failure.weights[number])
    assert weights_sha256(outage.final) != weights_sha256(run(seeded).final)
    # It is planned: no failure, though failures would end this run.
    assert outage.failures == []
    assert courses(outage.attendances) == [(1, ("hospital-02",), ()), (2, (), ())]


def test_a_straggler_leaves_the_model_that_a_failed_answer_leaves_to_the_bit(settings, run) -> None:
    late = run(with_profiles(settings, {"hospital-02": SLOW}, deadline_s=5.0), probes=[probe(3)])
    failure = run(with_faults(settings, *(Fault("hospital-02", number, "empty") for number in (1, 2))))
    assert weights_sha256(late.final) == weights_sha256(failure.final)
    assert late.failures == []
    # A malicious server waits for the answers to its probes.
    assert courses(late.attendances) == [(1, (), ("hospital-02",)), (2, (), ("hospital-02",)), (3, (), ())]
    assert [update.hospital for update in late.probed[3]] == list(settings.hospitals)
    # One batch of 8 records and three steps, one record a second, and the little that else it takes.
    assert 24 < late.attendances[0].seconds["hospital-02"] < 25


def test_profiles_and_a_deadline_that_all_keep_change_nothing(settings, run) -> None:
    slow = with_profiles(settings, {"hospital-02": SLOW}, deadline_s=60.0)
    assert weights_sha256(run(slow).final) == weights_sha256(run(settings).final)


def test_a_hospital_that_is_offline_in_a_probe_is_left_out_of_it(settings, run) -> None:
    seeded = offline_in(settings, {3})
    witness = run(with_profiles(seeded, {"hospital-02": SOMETIMES}), probes=[probe(3)])
    assert [update.hospital for update in witness.probed[3]] == ["hospital-01", "hospital-03"]
    assert weights_sha256(witness.final) == weights_sha256(run(seeded).final)


def test_absences_count_against_the_quorum(settings, run) -> None:
    late = with_profiles(settings, {"hospital-01": SLOW, "hospital-02": SLOW}, deadline_s=5.0)
    assert run(late).weights[2]
    with pytest.raises(QuorumLost, match=r"round 1: only 1 of the 3 .* \(0 offline, 2 late\), .* asks for 2"):
        run(replace(late, min_hospitals=2))
    nobody = with_profiles(settings, dict.fromkeys(settings.hospitals, SiteProfile(availability=1e-9)))
    with pytest.raises(QuorumLost, match=r"round 1: only 0 of the 3 .* \(3 offline, 0 late\), .* asks for 1"):
        run(nobody)


def test_settings_with_profiles_travel_as_text(settings) -> None:
    profiled = with_profiles(settings, {"hospital-02": SLOW}, deadline_s=5.0)
    assert AppSettings.from_json(profiled.to_json()) == profiled
