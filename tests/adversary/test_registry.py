from __future__ import annotations

import pytest

from hbdp_fed.adversary import ATTACKS, THREAT_MODELS, build_attack, threat_model
from hbdp_fed.errors import SettingError


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_goes_by_its_own_name(name: str) -> None:
    assert build_attack(name).name == name


def test_settings_reach_the_attack() -> None:
    assert build_attack("imprint", bins=17).bins == 17


def test_an_unknown_attack_or_setting_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingError, match=r"adversary\.attack: 'telepathy'.*imprint"):
        build_attack("telepathy")
    with pytest.raises(SettingError, match=r"adversary\.imprint.*binz"):
        build_attack("imprint", binz=17)


def test_each_threat_model_can_do_no_more_than_the_one_before() -> None:
    assert list(THREAT_MODELS) == ["worst_case", "relaxed", "realistic"]
    powers = [(m.knows_candidates, m.perfect_algorithm, m.malicious_server) for m in THREAT_MODELS.values()]
    assert powers == [(True, True, True), (False, True, True), (False, False, True)]


def test_an_unknown_threat_model_is_refused() -> None:
    assert threat_model("relaxed").name == "relaxed"
    with pytest.raises(SettingError, match="worst_case"):
        threat_model("harmless")
