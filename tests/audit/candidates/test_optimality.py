"""At orthogonal candidates of full clipping norm the attack is the best possible detector, and not better.

There theory knows what the best detector scores. Records and decoys are images of one pixel each, all different; the
games are those of ``scripts/detector_check.py``, which trains hospitals on them and plays the audit's real games. The
expected values are integrated here.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from hbdp_fed.adversary.worst_case import CandidateMatching, MembershipInference
from hbdp_fed.audit.candidates import Played, membership_figures
from hbdp_fed.privacy import best_identification, worst_case
from hbdp_fed.seeding import generator, stream_seed
from hbdp_fed.types import DpSgdParams

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "detector_check.py"
CANDIDATES, STEPS, GAMES = 16, 4, 1024
SIGMAS = (5.0, 2.0, 1.0, 0.6, 0.4)


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detector_check_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def played(
    sigma: float,
    *,
    sample_rate: float = 1.0,
    steps: int = STEPS,
    local_steps: int = 1,
    momentum: float = 0.0,
    surface: str = "gradient",
    games: int = GAMES,
    candidates: int = CANDIDATES,
) -> Sequence[Played]:
    """Hospitals of 64 records each, with other random streams for every noise multiplier."""
    found: list[Played] = script().play_many(
        DpSgdParams(sigma, max_grad_norm=1.0, sample_rate=sample_rate, steps=steps),
        games=games,
        candidates=candidates,
        local_steps=local_steps,
        momentum=momentum,
        surface=surface,
        seed=stream_seed(0, str(sigma)),
    )
    return found


def success(hospitals: Sequence[Played]) -> tuple[float, int]:
    """The share of games in which the right candidate was named, and how many games there were."""
    lots = generator(0, "lots")
    right = torch.cat([CandidateMatching().identify(one.candidates, lots) == one.truth for one in hospitals])
    return float(right.double().mean()), len(right)


def coherent_detection(candidates: int, distance: float) -> float:
    """P(N(distance, 1) > the largest of K - 1 independent N(0, 1))."""
    density = lambda x: norm.pdf(x - distance) * norm.cdf(x) ** (candidates - 1)  # noqa: E731
    return float(quad(density, -10, distance + 10, limit=200)[0])


def three_standard_errors(probability: float, games: int) -> float:
    return 3 * math.sqrt(probability * (1 - probability) / games)


def test_the_world_is_the_one_that_theory_solves() -> None:
    """Gradients of full clipping norm, orthogonal: what is left projects on them as independent standard normals."""
    hospitals = played(2.0)
    first = hospitals[0].candidates
    assert torch.allclose(first.squared_norms, torch.ones_like(first.squared_norms), rtol=1e-5)
    assert first.projections.shape == (64, STEPS, CANDIDATES)
    others = torch.cat(
        [
            one.candidates.projections.movedim(1, 2)[torch.arange(CANDIDATES) != one.truth[:, None]].flatten()
            for one in hospitals
        ]
    )
    own = torch.cat(
        [one.candidates.projections.movedim(1, 2)[torch.arange(len(one.truth)), one.truth] for one in hospitals]
    )
    assert float(others.std()) == pytest.approx(2, rel=0.02)
    assert abs(float(others.mean())) < 4 * 2 / math.sqrt(len(others))
    assert abs(float(own.mean()) - 1) < 4 * 2 / math.sqrt(own.numel())


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_attack_names_as_many_as_the_best_detector(sigma: float) -> None:
    rate, games = success(played(sigma))
    best = coherent_detection(CANDIDATES, math.sqrt(STEPS) / sigma)
    assert abs(rate - best) <= three_standard_errors(best, games)
    bound = worst_case(prior=1 / CANDIDATES, noise_multiplier=sigma, sample_rate=1, steps=STEPS)
    assert best < bound
    assert rate <= bound + three_standard_errors(bound, games)


def test_the_budgets_run_from_nearly_a_guess_to_nearly_certain() -> None:
    best = [coherent_detection(CANDIDATES, math.sqrt(STEPS) / sigma) for sigma in SIGMAS]
    assert best == sorted(best)
    assert best[0] < 2 / CANDIDATES
    assert best[-1] > 0.99


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("sigma", [2.0, 1.0])
def test_membership_has_the_power_of_the_most_powerful_test(sigma: float, level: float) -> None:
    figures = membership_figures(MembershipInference(), "gradient", played(sigma), level=level)
    (point,) = [point for point in figures.points if point.level == level]
    power = worst_case(prior=level, noise_multiplier=sigma, sample_rate=1, steps=STEPS)
    assert power == pytest.approx(norm.cdf(math.sqrt(STEPS) / sigma - norm.isf(level)), rel=1e-6)
    # The threshold is measured, too: how the power changes over the level's own error adds to the hits' error.
    slope = norm.pdf(math.sqrt(STEPS) / sigma - norm.isf(level)) / norm.pdf(norm.isf(level))
    error = math.hypot(
        three_standard_errors(power, figures.records), slope * three_standard_errors(level, figures.outsiders)
    )
    assert abs(point.true_positive_rate - power) <= error
    assert point.false_positive_rate == pytest.approx(level, abs=1e-3)
    assert point.true_positive_rate_ci95[0] <= point.bound_at_limit


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_update_of_several_steps_tells_what_its_best_detector_can_tell(momentum: float) -> None:
    """At q = 1 they add up, with the weights c that momentum gives them, to one of distance sum(c) / |c| / sigma."""
    sigma = 1.0
    rate, games = success(played(sigma, local_steps=STEPS, momentum=momentum, surface="update"))
    weights = np.array([sum(momentum**later for later in range(STEPS - step)) for step in range(STEPS)])
    distance = float(weights.sum() / np.linalg.norm(weights)) / sigma
    best = coherent_detection(CANDIDATES, distance)
    assert abs(rate - best) <= three_standard_errors(best, games)
    assert distance <= math.sqrt(STEPS) / sigma + 1e-12


def plain_inner_products(hospitals: Sequence[Played]) -> float:
    """The success of Hayes et al. 2023 (arXiv 2302.07225): the largest sum over steps of <g, y> is named."""
    right = torch.cat([one.candidates.projections.sum(dim=1).argmax(dim=-1) == one.truth for one in hospitals])
    return float(right.double().mean())


@pytest.mark.parametrize("sigma", [0.8, 0.4])
def test_with_subsampling_it_names_as_many_as_the_best_detector(sigma: float) -> None:
    hospitals = played(sigma, sample_rate=0.3, steps=6)
    rate, games = success(hospitals)
    best = best_identification(candidates=CANDIDATES, noise_multiplier=sigma, sample_rate=0.3, steps=6)
    assert abs(rate - best) <= three_standard_errors(best, games)
    bound = worst_case(prior=1 / CANDIDATES, noise_multiplier=sigma, sample_rate=0.3, steps=6)
    assert best < bound
    assert rate <= bound + three_standard_errors(bound, games)


def test_with_subsampling_the_plain_inner_product_names_fewer() -> None:
    hospitals = played(0.4, sample_rate=0.3, steps=6)
    assert success(hospitals)[0] > plain_inner_products(hospitals) + three_standard_errors(0.5, GAMES)


def test_without_subsampling_the_plain_inner_product_is_the_same() -> None:
    hospitals = played(1.0)
    assert success(hospitals)[0] == pytest.approx(plain_inner_products(hospitals), abs=2 / GAMES)


def test_the_script_prints_measured_beside_possible(capsys: pytest.CaptureFixture[str]) -> None:
    script().main(["--games", "100", "--candidates", "32", "--steps", "4", "--sigmas", "1", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "32 candidates, 4 steps, sample rate 1"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows[1:3]] == ["1", "0.5"]
    for row in rows[1:3]:
        assert float(row[4]) == pytest.approx(coherent_detection(32, 2 / float(row[0])), abs=1e-4)
        assert float(row[4]) < float(row[5])
        assert int(row[6]) == 128
    assert [float(row[0]) for row in rows[4:]] == [0.001, 0.01, 0.05, 0.1, 0.25, 0.5]
    assert "Membership at sigma 0.5" in lines
