"""What budgets give hospitals: the noise of a run, the library's own figures, ceilings, and who is protected least."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.planning import protections, read_consortium, weakest
from hbdp_fed.planning.leaving import reference_budget
from hbdp_fed.planning.protecting import protections_of_one_budget, refusals
from hbdp_fed.privacy import LinearProbe, plan_hospital, protection
from hbdp_fed.types import PrivacyBudget
from tests.planning.consortia import small


def test_every_figure_is_the_librarys_own() -> None:
    consortium = read_consortium(small(training__spare_steps=4, delta=1e-6, image={"size": 8, "rms": 0.25}))
    table = protections(consortium)
    for hospital in consortium.hospitals:
        for row in table[hospital.name]:
            plan = plan_hospital(
                name=hospital.name,
                num_records=hospital.records,
                budget=PrivacyBudget(row.eps, 1e-6),
                expected_batch=20,
                steps=54,
                max_grad_norm=1.0,
            )
            sigma, rate = plan.mechanism.noise_multiplier, 20 / hospital.records
            own = protection(noise_multiplier=sigma, sample_rate=rate, steps=54, delta=1e-6, prior=0.01)
            probe = LinearProbe(noise_multiplier=sigma, sample_rate=rate, steps=54, pixels=64, norm=2.0)
            assert row.noise_multiplier == sigma
            assert row.eps_rdp == plan.eps_rdp == own.eps_rdp
            assert row.eps_tight == (own.eps_lower, own.eps_tight)
            assert (row.worst_case, row.relaxed) == (own.worst_case, own.relaxed)
            assert row.best_psnr == pytest.approx(probe.expected_best_psnr(hospital.records), rel=1e-12)
            assert row.allowed


def test_several_processes_find_the_same() -> None:
    consortium = read_consortium(small(budgets=[1e6, 1e9]))
    assert protections(consortium, processes=2) == protections(consortium)


def test_a_ceiling_forbids_larger_budgets_and_allows_its_own() -> None:
    consortium = read_consortium(small(budgets=[1e6, 1e9, "inf"], b__ceiling=1e6))
    table = protections(consortium)
    assert [row.allowed for row in table["b"]] == [True, False, False]
    assert all(row.allowed for row in table["a"])
    found = refusals(table)
    assert list(found) == [1e9, math.inf]
    assert found[1e9] == "b refuses: the plan's epsilon 1e+09 is above the ceiling of 1e+06"
    assert reference_budget(table) == 1e6


def test_a_ceiling_is_meant_by_the_accountant_of_the_budgets() -> None:
    """By the tight accountant, the noise that RDP wants for 1e9 spends far less; a plan by RDP is held by RDP."""
    row = protections(read_consortium(small(budgets=[1e9], b__ceiling=0.5e9)))["b"][0]
    assert row.eps_tight is not None
    assert row.eps_tight[1] < 0.5e9
    assert not row.allowed
    tight = protections(read_consortium(small(budgets=[1e9], accountant="tight", b__ceiling=0.999e9)))["b"][0]
    assert tight.eps_tight is not None
    assert tight.allowed is (tight.eps_tight[1] <= 0.999e9)
    assert tight.noise_multiplier != row.noise_multiplier


def test_a_budget_that_no_noise_keeps_says_why() -> None:
    table = protections(read_consortium(small(budgets=[1e-3, 1e9])))
    for rows in table.values():
        assert rows[0].noise_multiplier is None
        assert not rows[0].allowed
        assert "never falls below" in (rows[0].problem or "")
        assert rows[1].allowed


def test_the_hospital_with_the_fewest_records_is_weakest_where_batches_are_equal() -> None:
    consortium = read_consortium(small(budgets=[8, 1e9, "inf"]))
    found = weakest(consortium, protections(consortium))
    assert found.name == "c"
    assert "the fewest 100 records" in found.why
    assert "q = 0.2, at the others 0.05 to 0.1" in found.why
    # Without noise, every record that takes part is as good as named everywhere, and every image is exact.
    assert [entry.name for entry in found.per_budget[:2]] == ["c", "c"]


def test_equal_rates_leave_the_best_image_of_the_most_records() -> None:
    consortium = read_consortium(small(training__batch_per="federation", budgets=[1e9]))
    found = weakest(consortium, protections(consortium))
    assert found.name == "a"
    assert "about the same rate" in found.why


def test_equal_hospitals_are_protected_alike() -> None:
    consortium = read_consortium(small(a__records=200, c__records=200, budgets=[1e9]))
    found = weakest(consortium, protections(consortium))
    assert found.name is None
    assert "alike" in found.why


def test_one_budget_alone_is_the_same_as_in_the_table() -> None:
    for batch_per in ("hospital", "federation"):
        consortium = read_consortium(small(training__batch_per=batch_per, budgets=[1e6]))
        table = protections(consortium)
        for name, row in protections_of_one_budget(consortium, 1e6).items():
            whole = table[name][0]
            assert row.noise_multiplier == pytest.approx(whole.noise_multiplier, rel=1e-6)
            assert row.best_psnr == pytest.approx(whole.best_psnr, abs=1e-4)
