"""Recommendations on made-up frontiers, of which the right answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbdp_fed.audit.proportions import wilson_interval
from hbdp_fed.errors import SettingError
from hbdp_fed.planning import NO_BUDGET, Policy, Recommendation, read_sweep, recommend
from hbdp_fed.planning.conditions import records_needed, upper_limit
from tests.planning.sweeps import attack, budget, control, sweep


def recommended(
    budgets: Sequence[Mapping[str, Any]],
    policy: Policy | None = None,
    *,
    lower_is_better: bool = False,
    refused: Mapping[float, str] | None = None,
    **more: Any,
) -> Recommendation:
    found = read_sweep(sweep(budgets, **more))
    frontier = found.frontier(0, metric="mcc", lower_is_better=lower_is_better)
    return recommend(frontier, policy or Policy(), metric_label="MCC", refused=refused)


def verdicts(found: Recommendation) -> list[str]:
    return [entry.verdict for entry in found.budgets]


LOSES = (0.10, 0.06, 0.14)
LEAKS = [attack(400, 440)]
UNCLEAR = (0.02, -0.01, 0.05)


def test_smallest_non_inferior_and_safe_budget_is_recommended() -> None:
    found = recommended([control(), budget(1e12, attacks=LEAKS), budget(1e9), budget(8), budget(1, loss=LOSES)])
    assert (found.verdict, found.eps) == ("recommended", 8.0)
    assert [entry.eps for entry in found.budgets] == [1, 8, 1e9, 1e12, math.inf]
    assert verdicts(found) == ["fails", "meets", "meets", "fails", "fails"]
    assert "eps=8" in found.conclusion


def test_no_budget_satisfies_where_small_ones_lose_and_large_ones_leak() -> None:
    found = recommended([budget(1, loss=LOSES), budget(1e9, attacks=LEAKS), control()])
    assert (found.verdict, found.eps, found.conclusion) == ("none", None, NO_BUDGET)
    assert verdicts(found) == ["fails", "fails", "fails"]
    # 0.14 / 0.03 is less to ask for than 0.93 / 0.01.
    assert found.what_would_change == ("nearest to giving way: a policy.margin of at least 0.14 would let eps=1 in",)


def test_what_is_nearest_to_giving_way_is_measured_by_the_ratio() -> None:
    found = recommended([budget(1, loss=(3.0, 2.0, 4.0)), budget(1e9, attacks=[attack(13, 440)]), control()])
    assert verdicts(found) == ["fails", "fails", "fails"]
    needed = wilson_interval(13, 440)
    assert needed is not None
    assert found.what_would_change == (
        f"nearest to giving way: a policy.risk above {needed[1]:.4g} would let eps=1e+09 in",
    )


def test_undecided_where_too_few_records_were_attacked() -> None:
    found = recommended([budget(8, attacks=[attack(0, 200)]), control()])
    assert (found.verdict, found.eps) == ("undecided", None)
    (line,) = found.what_would_change[:1]
    # Wilson's limit would be below 1% from 381 records on; the policy asks for 400.
    assert "200 more records attacked with imprint (400 in all) of which none is rebuilt" in line
    assert "200 records are fewer than the 400" in found.budgets[0].reasons[0]


def test_few_records_are_enough_to_fail() -> None:
    assert verdicts(recommended([budget(8, attacks=[attack(20, 40)])])) == ["fails"]


def test_undecided_where_the_margin_lies_inside_the_interval() -> None:
    found = recommended([budget(8, loss=UNCLEAR), control()])
    assert found.verdict == "undecided"
    # The half-width of 0.03 over 3 seeds has to become 0.01: nine times as many.
    assert "about 24 more seeds (27 in all), if the mean loss stays at 0.020" in found.what_would_change[0]


def test_where_no_number_of_seeds_would_do_a_margin_is_named() -> None:
    """The half-width of 0.031 over 3 seeds would have to become 0.001: 3 * 31 ** 2 seeds."""
    found = recommended([budget(8, loss=(0.029, -0.002, 0.06)), control()])
    assert found.verdict == "undecided"
    assert (
        "a margin above 0.060 rather than more seeds: the mean loss of 0.029 is so near" in found.what_would_change[0]
    )


def test_a_smaller_undecided_budget_is_told_and_does_not_hold_up_the_answer() -> None:
    found = recommended([budget(1, loss=UNCLEAR), budget(8), control()])
    assert (found.verdict, found.eps) == ("recommended", 8.0)
    assert found.what_would_change[0].startswith(
        "eps=1 is undecided; this would settle it, and decide whether it comes before eps=8: about"
    )


def test_undecided_without_a_realistic_attack_or_without_a_control() -> None:
    assert recommended([budget(8, attacks=[])]).verdict == "undecided"
    assert recommended([budget(8, attacks=[attack(0, 500, kind="membership")])]).verdict == "undecided"
    found = recommended([budget(8, loss=None)], control=None)
    assert found.verdict == "undecided"
    assert "a control (eps=inf)" in found.what_would_change[0]


@pytest.mark.parametrize("missing", [None, math.nan, "inf"])
def test_figures_that_do_not_exist_decide_nothing(missing: Any) -> None:
    entry = budget(8, attacks=[{**attack(0, 440), "success_rate_ci95": [missing, missing], "success_rate": missing}])
    entry["utility"]["mcc"]["difference"] = {"mean": missing, "low": missing, "high": missing}
    entry["utility"]["mcc"]["mean"] = missing
    found = recommended([entry])
    assert verdicts(found) == ["undecided"]
    assert found.budgets[0].loss["upper"] is None
    assert found.budgets[0].risk["upper"] is None


def test_the_control_loses_nothing_against_itself() -> None:
    found = recommended([budget(math.inf, loss=None, attacks=[attack(0, 440)])])
    assert (found.verdict, found.eps) == ("recommended", math.inf)


def test_the_worst_attack_decides() -> None:
    found = recommended([budget(8, attacks=[attack(0, 900), attack(30, 440, name="trap_weights")])])
    assert verdicts(found) == ["fails"]
    assert found.budgets[0].risk["attack"] == "trap_weights"
    half = recommended([budget(8, attacks=[attack(0, 900), attack(0, 100, name="trap_weights")])])
    assert verdicts(half) == ["undecided"]


def test_the_limits_are_where_the_policy_says() -> None:
    """At most the margin, and below the risk."""
    at = Policy(margin=0.05)
    assert recommended([budget(8, loss=UNCLEAR)], at).verdict == "recommended"
    ends = wilson_interval(0, 440)
    assert ends is not None
    assert recommended([budget(8)], Policy(risk=ends[1])).verdict == "undecided"
    assert recommended([budget(8)], Policy(risk=ends[1] + 1e-9)).verdict == "recommended"


def test_a_metric_of_which_less_is_better_is_turned_round() -> None:
    """A distance that grows by 0.10 is a loss of 0.10; one that shrinks by as much is none."""
    grows = budget(1, loss=LOSES, lower_is_better=True)
    assert grows["utility"]["mcc"]["difference"]["mean"] == pytest.approx(0.10)
    assert verdicts(recommended([grows], lower_is_better=True)) == ["fails"]
    assert verdicts(recommended([grows])) == ["meets"]


def test_a_ceiling_forbids_what_would_be_recommended() -> None:
    found = recommended([budget(8), budget(1e9)], refused={8.0: "private refuses: its ceiling is 1"})
    assert (found.verdict, found.eps) == ("recommended", 1e9)
    assert found.budgets[0].reasons[0] == "private refuses: its ceiling is 1"


def test_the_worst_case_counts_only_where_it_is_asked_for() -> None:
    assert recommended([budget(8, bound=0.9)]).verdict == "recommended"
    assert recommended([budget(8, bound=0.9)], Policy(max_worst_case_bound=0.2)).verdict == "none"
    assert recommended([budget(8, bound=0.2)], Policy(max_worst_case_bound=0.2)).verdict == "recommended"
    assert recommended([budget(8, bound=None)], Policy(max_worst_case_bound=0.2)).verdict == "undecided"


def test_the_relaxed_threat_model_can_be_asked_for() -> None:
    found = recommended([budget(8)], Policy(threat_model="relaxed"))
    assert found.verdict == "none"
    assert found.budgets[0].risk["attack"] == "linear_probe"


def test_reasons_tell_false_alarms_beside_the_raw_rate() -> None:
    found = recommended([budget(8, attacks=LEAKS)])
    assert "imprint rebuilt 400 of 440 records" in found.budgets[0].reasons[0]
    assert "a guess 0.0%, records that were not there 2.0%" in found.budgets[0].reasons[0]
    assert any("not taken off" in line for line in found.not_covered)


def test_what_is_not_covered_follows_from_what_was_measured() -> None:
    one_seed = recommended([budget(8, seeds=1)], pending=2)
    assert any("1 seed only" in line for line in one_seed.not_covered)
    assert any(line.startswith("2 runs of the sweep") for line in one_seed.not_covered)
    assert any("is that of imprint" in line for line in one_seed.not_covered)
    bound = recommended([budget(8)], Policy(max_worst_case_bound=0.9))
    assert not any("max_worst_case_bound" in line for line in bound.not_covered)
    assert any("max_worst_case_bound" in line for line in one_seed.not_covered)
    assert not any("seed" in line and "only" in line for line in bound.not_covered)


@pytest.mark.parametrize(("successes", "limit"), [(0, 0.01), (0, 0.001), (3, 0.01), (1, 0.5)])
def test_the_records_needed_are_the_first_that_are_enough(successes: int, limit: float) -> None:
    needed = records_needed(successes, at_least=1, limit=limit)
    assert needed is not None
    for records, enough in ((needed, True), (needed - 1, False)):
        if records >= max(1, successes):
            ends = wilson_interval(successes, records)
            assert ends is not None
            assert (ends[1] < limit) is enough
    assert records_needed(successes, at_least=needed + 7, limit=limit) == needed + 7


def test_the_limit_is_that_of_the_audit() -> None:
    for successes, records in ((0, 1), (0, 381), (5, 400), (77, 78)):
        ends = wilson_interval(successes, records)
        assert ends is not None
        assert upper_limit(successes, records) == pytest.approx(ends[1], rel=1e-12)


BUDGETS = st.lists(
    st.tuples(st.floats(-0.1, 0.1), st.floats(0.001, 0.1), st.integers(0, 500), st.integers(0, 30)),
    min_size=1,
    max_size=5,
)


def made(drawn: Sequence[tuple[float, float, int, int]], worse: int = 0) -> list[dict[str, Any]]:
    return [
        budget(
            10.0**place,
            loss=(mean, mean - half, mean + half),
            attacks=[attack(min(successes + worse, records + 100), records + 100)],
        )
        for place, (mean, half, records, successes) in enumerate(drawn)
    ]


def rank(found: Recommendation) -> float:
    return math.inf if found.eps is None else found.eps


@settings(max_examples=40, deadline=None)
@given(drawn=BUDGETS, worse=st.integers(0, 50))
def test_more_success_never_lowers_the_recommended_budget(
    drawn: Sequence[tuple[float, float, int, int]], worse: int
) -> None:
    assert rank(recommended(made(drawn, worse))) >= rank(recommended(made(drawn)))


@settings(max_examples=40, deadline=None)
@given(drawn=BUDGETS, margin=st.floats(0.001, 0.2), more=st.floats(0, 0.2), risk=st.floats(0.001, 0.2))
def test_a_looser_policy_never_raises_the_recommended_budget(
    drawn: Sequence[tuple[float, float, int, int]], margin: float, more: float, risk: float
) -> None:
    strict = recommended(made(drawn), Policy(margin=margin, risk=risk))
    for looser in (
        Policy(margin=margin + more, risk=risk),
        Policy(margin=margin, risk=risk + more),
        Policy(margin=margin, risk=risk, least_records=100),
    ):
        assert rank(recommended(made(drawn), looser)) <= rank(strict)


@settings(max_examples=40, deadline=None)
@given(drawn=BUDGETS)
def test_the_verdict_follows_from_those_of_the_budgets(drawn: Sequence[tuple[float, float, int, int]]) -> None:
    found = recommended(made(drawn))
    kinds = verdicts(found)
    assert found.verdict == ("recommended" if "meets" in kinds else "undecided" if "undecided" in kinds else "none")
    if "meets" in kinds:
        assert found.eps == 10.0 ** kinds.index("meets")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"margin": 0.0}, "policy.margin"),
        ({"margin": math.nan}, "policy.margin"),
        ({"risk": 1.0}, "policy.risk"),
        ({"least_records": 0}, "policy.least_records"),
        ({"threat_model": "worst_case"}, "policy.threat_model"),
        ({"max_worst_case_bound": 1.0}, "policy.max_worst_case_bound"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(arguments: Mapping[str, Any], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        Policy(**arguments)
    assert caught.value.key == key


def test_the_policy_is_told_in_words() -> None:
    words = Policy(margin=0.02, risk=0.05, least_records=150, max_worst_case_bound=0.3).in_words("MCC")
    for part in ("MCC is non-inferior", "at most 0.02", "below 5.00%", "at least 150 attacked", "exceeds 30.00%"):
        assert part in words


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ([], "kind"),
        ({"kind": "plan"}, "kind"),
        ({"kind": "sweep"}, "groups"),
        (sweep([], groups=[]), "groups"),
        (sweep([budget(8), budget(8)]), "groups[0].budgets"),
        (sweep([{**budget(8), "eps": -1}]), "groups[0].budgets[0].eps"),
        (
            sweep([budget(8, attacks=[{**attack(0, 440), "success_rate_ci95": ["low", 1]}])]),
            "groups[0].budgets[0].risk.realistic.attacks[0].success_rate_ci95[0]",
        ),
    ],
)
def test_a_file_that_is_no_sweep_is_refused_with_the_place(content: Any, key: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_sweep(content)
    assert caught.value.key == key


def test_a_group_without_a_finished_run_is_refused_when_it_is_asked_for() -> None:
    found = read_sweep(sweep([]))
    with pytest.raises(SettingError, match="no run of it is finished"):
        found.frontier(0, metric="mcc", lower_is_better=False)


def test_an_unknown_metric_is_refused_with_those_that_were_measured() -> None:
    with pytest.raises(SettingError, match=r"policy\.metric: 'dice' is not known; choose one of: mcc"):
        read_sweep(sweep([budget(8)])).frontier(0, metric="dice", lower_is_better=False)
