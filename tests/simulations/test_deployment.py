"""A run on real sites: what cannot be asked for is said at once, and nothing local is in the charter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.charter import Charter, CharterError
from simulations.compose import compose_run, typed
from simulations.deployment import charter_of, check_deployment, deployment_of
from simulations.execute import app_settings
from simulations.prepare import Prepared, prepare
from simulations.program import BAD_INPUT
from simulations.run import main
from simulations.utility import partition_summary

SMALL = [
    "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40", "model.width=4", "training.rounds=2",
    "training.local_steps=2", "training.expected_batch=8", "evaluation.bootstrap=0",
]  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> list[str]:
    (tmp_path / "ca.pem").write_text("a certificate")
    files = [f"engine.root_certificates={tmp_path / 'ca.pem'}", f"engine.federations={tmp_path / 'there'}"]
    return ["engine=superlink", *files]


def prepared_with(settings: Sequence[str]) -> Prepared:
    return prepare(typed(compose_run([*SMALL, *settings])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["engine.root_certificates=null"], "engine.root_certificates: must be given for engine=superlink"),
        (["engine.root_certificates=nowhere.pem"], "nowhere.pem is no file"),
        (["engine.federations=null"], "engine.federations: must be given for engine=superlink"),
        (["engine.address=somewhere"], "engine.address: must be host:port of the SuperLink, got somewhere"),
        (["engine.patience_s=0"], "engine.patience_s: must be a positive number of seconds"),
        (["federation.deadline_s=5"], "federation.deadline_s: is for simulations"),
        (["federation.profiles={default: {availability: 0.5}}"], "federation.profiles: is for simulations"),
        (["federation.faults=[{hospital: hospital-01, round: 1, kind: raises}]"], "federation.faults"),
        (["adversary.attack=imprint"], "adversary.attack: must be none or auto: real hospitals are not attacked"),
        (
            ["federation.elsewhere={north: 5, south: 8}", "federation.members=[north]"],
            "federation.elsewhere: stands alone, without federation.members",
        ),
        (["federation.elsewhere={north: 0}"], "federation.elsewhere: north must hold at least 1 record"),
    ],
)
def test_what_a_real_federation_cannot_be_asked_for_is_said_at_once(
    tmp_path: Path, server: list[str], capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    assert main([*SMALL, *server, *settings, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_hospitals_elsewhere_are_for_real_federations_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "federation.elsewhere={north: 5, south: 8}"]) == BAD_INPUT
    assert "federation.elsewhere: is for engine=superlink" in capsys.readouterr().err


def test_a_charter_says_what_was_agreed_to_and_nothing_of_this_machine(tmp_path: Path, server: list[str]) -> None:
    prepared = prepared_with([*server, "federation.elsewhere={north: 500, south: 80}", "privacy.secure_noise=true"])
    charter = charter_of(prepared, app_settings(prepared, None))
    text = charter.to_json()
    assert str(tmp_path) not in text
    assert Charter.from_json(text) == charter
    assert charter.settings.hospitals == ("north", "south")
    assert [site.plan.num_records for site in charter.settings.sites] == [500, 80]
    # Who is in a batch is a secret where noise is.
    assert charter.settings.secure_noise
    assert not charter.settings.replayable_batches


def test_a_charter_is_known_by_all_that_is_in_it(server: list[str]) -> None:
    prepared = prepared_with([*server, "clients=2"])
    charter = charter_of(prepared, app_settings(prepared, None))
    assert replace(charter).digest == charter.digest
    for other in (
        replace(charter, name="other"),
        replace(charter, initial_sha256="0" * 64),
        replace(charter, settings=replace(charter.settings, seed=1)),
    ):
        assert other.digest != charter.digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read: name: Field required"),
        ("[" * 100_000, "cannot be read"),
        ("x" * 5_000_000, "at most 4000000 are read"),
    ],
)
def test_what_is_no_charter_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(CharterError, match=problem) as error:
        Charter.from_json(text)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-begins", "x" * 65, "new\nline"])
def test_a_charters_name_leads_out_of_no_folder(server: list[str], name: str) -> None:
    prepared = prepared_with([*server, "clients=2"])
    charter = charter_of(prepared, app_settings(prepared, None))
    with pytest.raises(CharterError, match="is not of letters, digits, dot, dash and underscore"):
        Charter.from_json(replace(charter, name=name).to_json())


def test_who_holds_what_elsewhere_is_counted_and_not_guessed(server: list[str]) -> None:
    summary = partition_summary(prepared_with([*server, "federation.elsewhere={north: 500, south: 80}"]))
    assert summary["scheme"] == "elsewhere"
    assert [(one["name"], one["train"], one["classes"]) for one in summary["hospitals"]] == [
        ("north", 500, {}),
        ("south", 80, {}),
    ]


def test_the_server_is_where_the_settings_say(tmp_path: Path, server: list[str]) -> None:
    config = typed(compose_run([*server, "engine.address='[::1]:9092'"]))
    check_deployment(config)
    deployment = deployment_of(config.engine)
    assert deployment.connection.address == "[::1]:9092"
    assert deployment.federations == tmp_path / "there"


def test_attacks_are_left_out_with_a_word(server: list[str]) -> None:
    attacks = prepared_with([*server, "clients=2"]).attacks
    assert attacks.attacks == ()
    assert "real hospitals are not attacked" in attacks.left_out[0]
    with pytest.raises(SettingError, match="real hospitals are not attacked"):
        prepared_with([*server, "clients=2", "adversary.attack=membership"])
