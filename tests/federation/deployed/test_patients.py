"""Charters whose budget is per patient: a hospital holds them against whose its own records are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hbdp_fed.data.shards import read_shard, write_shard
from hbdp_fed.federation.charter import Charter, CharterError
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.types import PatientCount
from tests.federation.deployed.conftest import POLICY, Hospital

GROUPS = torch.arange(20) // 3
"""Seven patients of the first hospital's 20 records: six of three, one of two."""
RECORDS_A_PATIENT = 2
PLANNED = PatientCount(7, 14)


@pytest.fixture
def per_patient(charter: Charter) -> Charter:
    def told(place: int, site: Any) -> Any:
        count = PLANNED if place == 0 else PatientCount(5, 9)
        return replace(site, plan=replace(site.plan, patients=count))

    settings = charter.settings
    sites = tuple(told(place, site) for place, site in enumerate(settings.sites))
    local = replace(settings.local, records_per_patient=RECORDS_A_PATIENT)
    return replace(charter, name="patients", settings=replace(settings, sites=sites, local=local))


def with_groups(hospital: Hospital, groups: torch.Tensor | None) -> Hospital:
    file = hospital.folder.records_file
    write_shard(file, replace(read_shard(file), groups=groups))
    return hospital


def test_a_charter_travels_with_its_unit(per_patient: Charter) -> None:
    again = Charter.from_json(per_patient.to_json())
    assert again == per_patient
    assert again.settings.sites[0].plan.unit == "patient"


def test_a_hospital_that_knows_its_patients_takes_part_and_enters_them(
    hospital: Callable[..., Hospital], request_of: Callable[..., TrainRequest], per_patient: Charter
) -> None:
    own = with_groups(hospital(terms=per_patient), GROUPS)
    update = own.update(request_of())
    assert all(bool(torch.isfinite(value).all()) for value in update.values())
    ledger = next(own.folder.agreements.glob("*/ledger.jsonl")).read_text().splitlines()
    plan = json.loads(ledger[0])
    assert (plan["kind"], plan["unit"], plan["patients"], plan["records"]) == ("plan", "patient", 7, 20)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (None, "the charter's budget is per patient, and the hospital's records do not say whose they are"),
        (
            torch.arange(20) // 2,
            "the charter says 7 patients with 14 records a step at most, and the hospital holds 10 patients with 20",
        ),
    ],
)
def test_a_hospital_whose_patients_are_others_refuses(
    hospital: Callable[..., Hospital], per_patient: Charter, groups: torch.Tensor | None, told: str
) -> None:
    own = with_groups(hospital(terms=per_patient), groups)
    assert told in own.refusal(own.enrolled())


@pytest.mark.parametrize("first", ["record", "patient"])
def test_budgets_of_records_and_of_patients_do_not_add_up(
    hospital: Callable[..., Hospital],
    request_of: Callable[..., TrainRequest],
    charter: Charter,
    per_patient: Charter,
    first: str,
) -> None:
    terms = [charter, per_patient] if first == "record" else [per_patient, charter]
    with_groups(hospital(terms=terms[0]), GROUPS).update(request_of())
    other = hospital(terms=terms[1])
    assert "budgets of records and of patients do not add up" in other.refusal(other.enrolled())
    unlimited = hospital(terms=terms[1], policy=replace(POLICY, highest_epsilon=math.inf))
    assert unlimited.update(request_of())


def test_a_charter_whose_plans_and_training_have_different_units_is_none(per_patient: Charter) -> None:
    settings = per_patient.settings
    for local, told in (
        (replace(settings.local, records_per_patient=None), "every plan must be for the unit of privacy"),
        (replace(settings.local, records_per_patient=0), "records_per_patient must be at least 1, got 0"),
    ):
        wrong = replace(per_patient, settings=replace(settings, local=local))
        with pytest.raises(CharterError, match=told):
            Charter.from_json(wrong.to_json())
