"""The attacks and threat models by name: the tables of the design, and what is refused."""

from __future__ import annotations

from typing import get_args

import pytest

from hbdp_fed.adversary import ATTACKS, SURFACES, THREAT_MODELS, build_attack, threat_model
from hbdp_fed.errors import SettingError
from hbdp_fed.types import Surface

DOCUMENTED = {
    "imprint": ("realistic", "probe"),
    "trap_weights": ("realistic", "probe"),
    "loki": ("realistic", "probe"),
    "gradient_inversion": ("realistic", "round"),
    "kkt": ("realistic", "model"),
    "model_inversion": ("realistic", "model"),
    "linear_probe": ("relaxed", "probe"),
    "candidate_matching": ("worst_case", "identification"),
    "membership": ("worst_case", "membership"),
    "property_inference": ("realistic", "property"),
    "linear_reconstruction": ("realistic", "queries"),
}
"""What each threat model is attacked with."""

INTERFACE = {
    "probe": {"check_public", "craft", "reconstruct"},
    "round": {"check_public", "reconstruct"},
    "model": {"check_public", "reconstruct"},
    "identification": {"identify"},
    "membership": {"score"},
    "property": {"tell"},
    "queries": {"recover"},
}
"""What an attack of a kind can be asked to do."""


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_goes_by_its_own_name(name: str) -> None:
    assert build_attack(name).name == name


def test_threat_models_and_kinds_are_the_documented_ones() -> None:
    assert {name: (entry.threat_model.name, entry.kind) for name, entry in ATTACKS.items()} == DOCUMENTED
    # Each is granted what its threat model says, no more and no less.
    for entry in ATTACKS.values():
        assert entry.threat_model == THREAT_MODELS[entry.threat_model.name]
    # None of the three is without an attack.
    assert {model for model, _ in DOCUMENTED.values()} == set(THREAT_MODELS)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_can_do_what_its_kind_says_and_needs_no_settings(name: str) -> None:
    attack = build_attack(name)
    assert all(callable(getattr(attack, method)) for method in INTERFACE[ATTACKS[name].kind])
    foreign = set().union(*INTERFACE.values()) - INTERFACE[ATTACKS[name].kind]
    assert not any(hasattr(attack, method) for method in foreign)


def test_the_surfaces_are_all_that_there_are() -> None:
    assert get_args(Surface) == SURFACES
    assert SURFACES == ("gradient", "update", "aggregate", "global_model")


def test_settings_reach_the_attack() -> None:
    assert build_attack("imprint", bins=17).bins == 17
    assert build_attack("trap_weights", bins=33).bins == 33
    assert build_attack("linear_probe", rank=5).rank == 5


def test_an_unknown_attack_or_setting_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingError, match=r"adversary\.attack: 'telepathy'.*imprint"):
        build_attack("telepathy")
    for name in ATTACKS:
        with pytest.raises(SettingError, match=rf"adversary\.{name}.*binz"):
            build_attack(name, binz=17)


def test_each_threat_model_can_do_no_more_than_the_one_before() -> None:
    assert list(THREAT_MODELS) == ["worst_case", "relaxed", "realistic"]
    powers = [(m.knows_candidates, m.perfect_algorithm, m.malicious_server) for m in THREAT_MODELS.values()]
    assert powers == [(True, True, True), (False, True, True), (False, False, True)]


def test_an_unknown_threat_model_is_refused() -> None:
    assert threat_model("relaxed").name == "relaxed"
    with pytest.raises(SettingError, match="worst_case"):
        threat_model("harmless")
