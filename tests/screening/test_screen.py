"""The verdicts: honest models pass, models made to trap records do not, each for its reason."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from hbdp_fed.adversary.imprint.crafting import ImprintDesign
from hbdp_fed.adversary.imprint.crafting import craft_model as craft_imprint
from hbdp_fed.adversary.loki.blocks import of_one_hospital, repeated
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.trap_weights.crafting import TrapDesign
from hbdp_fed.adversary.trap_weights.crafting import craft_model as craft_traps
from hbdp_fed.screening import MEASURES, STRUCTURE, Look, Range, Screen, ranges_of
from hbdp_fed.types import ModelSpec, Weights
from tests.screening.conftest import CNN, Site, fresh, make_site, stream

LOUD, SILENCED = Loudness(100.0), Loudness(1e4, base_scale=0.0)


def imprint(site: Site, loudness: Loudness = LOUD) -> tuple[ModelSpec, Weights]:
    return craft_imprint(CNN, fresh(CNN), site.public_images, ImprintDesign(64, loudness))


def traps(site: Site, loudness: Loudness = LOUD) -> tuple[ModelSpec, Weights]:
    return craft_traps(CNN, fresh(CNN), site.public_images, TrapDesign(64, 0.125, loudness))


def loki(site: Site, loudness: Loudness = LOUD) -> tuple[ModelSpec, Weights]:
    architecture, weights = repeated(*imprint(site, loudness), 3)
    return architecture, of_one_hospital(weights, 1, 3)


ATTACKS = {"imprint": imprint, "trap_weights": traps, "loki": loki}


@cache
def screen_for(text: str) -> Screen:
    """A check by hospitals that agreed to this architecture, whatever it is."""
    architecture = ModelSpec.from_json(text)
    return make_site().screen(architecture, agreed=architecture)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_honest_models_pass(sigma: float) -> None:
    site = make_site(sigma=sigma)
    screen = site.screen(CNN, agreed=CNN)
    noise = stream(4)
    noisy = {name: value + 0.01 * torch.randn(value.shape, generator=noise) for name, value in fresh(CNN, 55).items()}
    for weights in (fresh(CNN, 50), fresh(CNN, 51), noisy):
        verdict = screen.examine(CNN, weights)
        assert not verdict.flagged, verdict.reasons
        assert all(figure < 1 for figure in verdict.figures.values())
        assert set(verdict.figures) == {STRUCTURE, *MEASURES}


@pytest.mark.parametrize("name", ATTACKS)
def test_planted_model_is_not_the_one_agreed_to(name: str, site: Site) -> None:
    verdict = screen_for(CNN.to_json()).examine(*ATTACKS[name](site))
    assert verdict.flagged
    assert verdict.measures == (STRUCTURE,)
    assert verdict.reasons == ("the model is a planted, not the cnn that was agreed to",)


@pytest.mark.parametrize("loudness", [LOUD, SILENCED], ids=["loud", "silenced"])
@pytest.mark.parametrize("name", ATTACKS)
def test_planted_weights_are_found_where_their_architecture_was_agreed_to(
    name: str, loudness: Loudness, site: Site
) -> None:
    architecture, weights = ATTACKS[name](site, loudness)
    verdict = screen_for(architecture.to_json()).examine(architecture, weights)
    assert STRUCTURE not in verdict.measures
    assert "shared_rows" in verdict.measures
    [words] = [finding.words for finding in verdict.findings if finding.measure == "shared_rows"]
    assert words.startswith("planted.weight: the overlap of the rows that two images use is ")


@pytest.mark.parametrize("name", ATTACKS)
def test_fresh_weights_of_a_planted_architecture_pass_where_it_was_agreed_to(name: str, site: Site) -> None:
    architecture, _ = ATTACKS[name](site)
    verdict = screen_for(architecture.to_json()).examine(architecture, fresh(architecture, 60))
    assert not verdict.flagged, verdict.reasons


def test_copied_rows_and_repeated_values_are_found_by_their_weights(site: Site) -> None:
    architecture, weights = imprint(site)
    measures = screen_for(architecture.to_json()).examine(architecture, weights).measures
    assert {"distinct_values", "distinct_rows", "size", "peak"} <= set(measures)


def test_weights_that_are_not_finite_are_flagged_without_a_look(site: Site) -> None:
    weights = {**fresh(CNN), "head.bias": torch.tensor([0.0, torch.nan])}
    verdict = screen_for(CNN.to_json()).examine(CNN, weights)
    assert verdict.reasons == ("its weights are not finite",)
    assert verdict.figures == {STRUCTURE: math.inf}


def test_ranges_are_those_of_honest_models_widened() -> None:
    looks = [Look({"head.weight": torch.full((4, 4), value)}, {}) for value in (1.0, 2.0)]
    ranges = ranges_of(looks)
    below, above = MEASURES["size"].below, MEASURES["size"].above
    assert below is not None
    assert above is not None
    assert ranges["size"] == {name: Range(1.0 / below, 2.0 * above) for name in ("head.weight", "")}
    # Nothing was seen of gradients: what passes is what passes anywhere.
    assert ranges["shared_rows"] == {"": Range(MEASURES["shared_rows"].unseen, math.inf)}


def test_one_sided_measure_lets_the_other_side_pass() -> None:
    ranges = ranges_of([Look({"head.weight": torch.eye(4)}, {})])
    assert ranges["distinct_rows"]["head.weight"] == Range(1.0 / MEASURES["distinct_rows"].below, math.inf)  # type: ignore[operator]
    assert ranges["tails"]["head.weight"].lowest == 0.0


@pytest.mark.parametrize(("figure", "distance"), [(0.1, 2.0), (0.2, 1.0), (1.0, 0.5), (4.0, 2.0)])
def test_distance_is_the_factor_by_which_a_figure_is_off(figure: float, distance: float) -> None:
    found = Range(0.2, 2.0)
    assert found.distance(figure) == pytest.approx(distance)
    assert found.holds(figure) == (distance <= 1)
