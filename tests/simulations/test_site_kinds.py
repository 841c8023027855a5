"""Kinds of sites by name: for any number of hospitals, beside what a user sets, and in a run's figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hbdp_fed.errors import SettingError
from hbdp_fed.training.pace import SiteProfile
from simulations.compose import choices, compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from simulations.schema import RunConfig
from simulations.site_kinds import kinds_of_sites, scanner_shifts
from simulations.sites_summary import sites_summary

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "sites"
UNEQUAL = ("academic_and_community", "one_giant")
SMALL = [
    "engine=inprocess", "eps=1e9", "data.num_train=200", "data.num_val=60", "data.num_test=120", "model.width=4",
    "training.rounds=2", "training.local_steps=1", "training.expected_batch=8", "evaluation.bootstrap=0",
    "adversary.attack=none", "adversary.prior=0.02",
]  # fmt: skip


def config(*settings: str) -> RunConfig:
    return typed(compose_run(settings))


def prepared(*settings: str) -> Prepared:
    return prepare(config(*SMALL, *settings))


def written_down(name: str) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["sites"]["kinds"]
    return kinds


def test_sites_are_chosen_by_name_and_equal_unless_somebody_asks() -> None:
    assert choices("sites") == ["academic_and_community", "equal", "one_giant"]
    assert config().sites.kinds == []
    assert (config().partition.sizes, config().data.scanner_shift) == ("equal", 0.5)
    assert config() == config("sites=equal")
    with pytest.raises(SettingError, match="sites: 'huge' is not known; choose one of: academic_and_community, equal"):
        compose_run(["sites=huge"])


def test_equal_sites_leave_a_run_as_it_was() -> None:
    ours = prepared("clients=3")
    assert [plan.num_records for plan in ours.plans] == [67, 67, 66]
    assert ours.profiles == (SiteProfile(),) * 3
    assert {entry["kind"] for entry in sites_summary(ours)["hospitals"]} == {None}


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("name", UNEQUAL)
def test_kinds_fit_any_number_of_hospitals_large_ones_first(name: str, clients: int) -> None:
    found = kinds_of_sites(config(f"sites={name}", f"clients={clients}"))
    assert len(found) == clients
    shares = [kind.share for kind in found]
    assert shares == sorted(shares, reverse=True)
    written = written_down(name)
    counts = {kind["kind"]: sum(own.name == kind["kind"] for own in found) for kind in written}
    assert counts[written[0]["kind"]] == max(1, int(written[0]["hospitals"] * clients + 0.5))
    for kind in written:
        mine = [own for own in found if own.name == kind["kind"]]
        if mine:
            assert sum(own.share for own in mine) == pytest.approx(kind["records"])
            assert {own.scanner_shift for own in mine} == {kind["scanner_shift"]}


def test_academic_hospitals_are_few_large_quick_well_connected_and_always_there() -> None:
    academic, *_, community = kinds_of_sites(config("sites=academic_and_community", "clients=8"))
    quick, slow = SiteProfile(**academic.profile), SiteProfile(**community.profile)
    assert academic.share > 5 * community.share
    assert academic.scanner_shift < community.scanner_shift
    assert quick.records_per_s > slow.records_per_s
    assert quick.upload_mbit_s > slow.upload_mbit_s
    assert quick.availability == 1 > slow.availability


@pytest.mark.parametrize("clients", [2, 5, 40])
def test_a_giant_has_most_of_the_records(clients: int) -> None:
    shares = [kind.share for kind in kinds_of_sites(config("sites=one_giant", f"clients={clients}"))]
    assert shares[0] > 3 * sum(shares[1:])


def test_a_name_sets_records_scanners_computers_and_lines_of_every_hospital() -> None:
    ours, written = prepared("clients=4", "sites=academic_and_community"), written_down("academic_and_community")
    assert [plan.num_records for plan in ours.plans] == [140, 20, 20, 20]
    for place, entry in enumerate(sites_summary(ours)["hospitals"]):
        kind = written[min(place, 1)]
        assert entry["kind"] == kind["kind"]
        assert all(entry[field] == kind[field] for field in vars(SiteProfile()))
        scanner = ours.federated.scanners[place]
        assert 0 < scanner.noise <= 0.06 * kind["scanner_shift"]
        assert entry["scanner"]["resolution"] == scanner.resolution


def test_what_a_user_sets_wins_over_the_name() -> None:
    settings = [
        "clients=3", "sites=academic_and_community", "partition.sizes=equal", "data.scanner_shift=0",
        "federation.profiles={default:{latency_s:7},hospital-02:{availability:0.4}}",
    ]  # fmt: skip
    ours = prepared(*settings)
    assert [plan.num_records for plan in ours.plans] == [67, 67, 66]
    assert all(scanner.changes_nothing for scanner in ours.federated.scanners)
    assert [profile.latency_s for profile in ours.profiles] == [7, 7, 7]
    assert [profile.availability for profile in ours.profiles] == [1.0, 0.4, 0.85]
    assert [profile.records_per_s for profile in ours.profiles] == [2000, 100, 100]


def test_sites_of_ones_own_are_written_like_those_with_a_name() -> None:
    mine = "sites.kinds=[{kind:city,hospitals:0.5,records:9,upload_mbit_s:7},{kind:village,hospitals:0,records:1}]"
    ours = config("clients=4", mine, "partition.sizes=sites", "data.scanner_shift=null")
    assert [(kind.name, kind.share) for kind in kinds_of_sites(ours)] == [
        ("city", 4.5), ("city", 4.5), ("village", 0.5), ("village", 0.5),
    ]  # fmt: skip
    assert scanner_shifts(ours) == [0.0] * 4
    assert scanner_shifts(config("data.scanner_shift=null")) == 0.0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("hospitals:2,records:1", "sites.kinds: hospitals of a: must be a number between 0 and 1, got 2"),
        ("hospitals:1,records:0", "sites.kinds: records of a: must be a number between 1e-09 and 1e+09"),
        ("hospitals:1,records:1,scanner_shift:-1", "sites.kinds: scanner_shift of a: must be a number between 0"),
        ("hospitals:1,records:1,availability:0", "federation.profiles: hospital-01: availability must lie in"),
        ("hospitals:1", "sites.kinds[0].records: is missing"),
    ],
)
def test_kinds_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: Any, kind: str, words: str
) -> None:
    given = [*SMALL, "clients=2", f"sites.kinds=[{{kind:a,{kind}}}]", f"run_dir={tmp_path / 'run'}"]
    assert main(given) == BAD_INPUT
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_tells_what_each_hospital_is_like_and_what_becomes_of_it(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    given = ["clients=4", "sites=academic_and_community", "report=both", "smallest_count=1", f"run_dir={folder}"]
    assert main([*SMALL, *given]) == OK
    shown = capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert summary["sites"]["name"] == "academic_and_community"
    assert [own["kind"] for own in summary["sites"]["hospitals"]] == ["academic", *["community"] * 3]
    least = summary["worst_hospital"]
    judged = {own["name"]: own for own in summary["utility_per_hospital"]}
    assert least["value"] == min(own[least["metric"]] for own in judged.values()) == judged[least["name"]]["mcc"]
    assert f"worst hospital   │ {least['name']}" in shown
    for own in summary["privacy"]["hospitals"]:
        kind = "academic" if own["name"] == "hospital-01" else "community"
        worth = f"MCC {judged[own['name']]['mcc']:.3f}, epsilon {own['eps_rdp']:.4g}, in truth at most"
        assert f"{own['name']} ({kind}): {worth} {own['eps_tight']:.4g}" in shown
    assert "Sites: academic_and_community" in shown
    for name in ("academic", "community", "point spread"):
        assert name in page
        assert name in text
    assert json.loads((folder / "card.json").read_text())["sites"] == summary["sites"]
    assert summary["privacy"]["overlap"] is None
    assert "known to several" not in shown


def test_alone_and_pooled_are_never_offline(tmp_path: Path) -> None:
    """What a sweep compares with has nobody to wait for, however often its sites are offline."""
    never = "federation.profiles={default:{availability:1}}"
    alone = prepared("clients=3", "sites=academic_and_community", never, "federation.members=[hospital-03]")
    pool = prepared("clients=3", "sites=academic_and_community", never, "federation.pooled=true")
    assert alone.profiles[0].availability == pool.profiles[0].availability == 1
    assert alone.profiles[0].records_per_s == 100
    assert sites_summary(pool)["hospitals"][0]["kind"] is None
