"""A consortium's file: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import yaml

from hbdp_fed.errors import SettingError
from hbdp_fed.planning import read_consortium
from hbdp_fed.planning.consortium import HospitalEntry
from hbdp_fed.training.pace import SiteProfile
from tests.planning.consortia import SMALL, small


def test_numbers_as_people_write_them_in_yaml_are_numbers() -> None:
    """YAML 1.1 takes 1e-5, 1e9 and inf for text."""
    text = yaml.safe_dump({name: value for name, value in SMALL.items() if name != "budgets"})
    found = read_consortium(yaml.safe_load(text + "budgets: [inf, 1e9, 8]\ndelta: 1e-6\n"))
    assert found.budgets == (8.0, 1e9, math.inf)
    assert found.delta == 1e-6


def test_one_number_is_a_square_and_three_are_a_volume() -> None:
    assert read_consortium(small()).image.shape == (1, 28, 28)
    assert read_consortium(small(image={"size": [8, 16, 4], "channels": 3})).image.shape == (3, 8, 16, 4)


@pytest.mark.parametrize(
    ("batch_per", "expected"), [("hospital", [20, 20, 20]), ("federation", [80 / 7, 40 / 7, 20 / 7])]
)
def test_the_batch_is_one_hospitals_or_all_hospitals_together(batch_per: str, expected: list[float]) -> None:
    found = read_consortium(small(training__batch_per=batch_per))
    assert [found.expected_batch(hospital) for hospital in found.hospitals] == pytest.approx(expected, rel=1e-12)


def test_no_hospital_draws_more_than_it_holds() -> None:
    found = read_consortium(small(training__expected_batch=150))
    assert [found.expected_batch(hospital) for hospital in found.hospitals] == [150, 150, 100]


def test_a_hospital_without_a_line_has_that_of_a_run_without_profiles() -> None:
    profile = dataclasses.asdict(SiteProfile())
    profile.pop("records_per_s")
    for name, value in profile.items():
        assert HospitalEntry.model_fields[name].default == value


@pytest.mark.parametrize(
    ("value", "key", "problem"),
    [
        ([], "(the whole file)", "must be a mapping"),
        (small(nane="x"), "nane", "there is no such key; did you mean 'name'?"),
        ({**SMALL, "hospitals": {"a": {"records": 3}}}, "hospitals", "must be a list"),
        (small(training__round=3), "training.round", "did you mean 'rounds'?"),
        (small(b__record=3), "hospitals[1].record", "did you mean 'records'?"),
        (small(b__zzz=3), "hospitals[1].zzz", "the keys are: name, records"),
        (small(b__records=0), "hospitals[1].records", "must be at least 1, got 0"),
        (small(b__records=10.5), "hospitals[1].records", "must be a whole number, got 10.5"),
        (small(b__records=True), "hospitals[1].records", "must be a number, got true"),
        (small(b__records="many"), "hospitals[1].records", "must be a whole number, got many"),
        (small(b__records=None), "hospitals[1].records", "must be a whole number, got None"),
        (small(c__patients=101), "hospitals[2].patients", "must be at most the 100 records"),
        (small(c__ceiling=0), "hospitals[2].ceiling", "must be above 0, got 0"),
        (small(c__ceiling=math.nan), "hospitals[2].ceiling", "must be above 0"),
        (small(c__availability=1.5), "hospitals[2].availability", "must be at most 1, got 1.5"),
        (small(c__records_per_s="inf"), "hospitals[2].records_per_s", "must be finite"),
        (small(c__latency_s=-1), "hospitals[2].latency_s", "must be at least 0, got -1"),
        (small(c__watts=-1), "hospitals[2].watts", "must be at least 0"),
        (small(c__name="a"), "hospitals[2].name", "'a' is already the name of hospitals[0]"),
        (small(c__name=""), "hospitals[2].name", "must not be empty"),
        (small(c__records_per_s=None, c__gpu="H100"), "hospitals[2].records_per_s", "calibrate=true"),
        (small(hospitals=SMALL["hospitals"][:1]), "hospitals", "must have at least 2 entries"),
        (small(hospitals="a, b"), "hospitals", "must be a list"),
        (small(image__size=[3]), "image.size", "must have at least 2 entries"),
        (
            small(task="guess"),
            "task",
            "must be one of 'binary', 'multiclass', 'multilabel' or 'segmentation', got guess",
        ),
        (small(classes=3), "classes", "must be 2 for a binary task, got 3"),
        (small(delta=0.01), "delta", "0.01 must be below 1/records = 0.0025 of a"),
        (small(delta=1), "delta", "must be below 1, got 1"),
        (small(prior=0), "prior", "must be above 0"),
        (small(budgets=[]), "budgets", "must have at least 1 entries"),
        (small(budgets=[8, -1]), "budgets[1]", "must be above 0, got -1"),
        (small(budgets=[8, 1e21]), "budgets[1]", "up to 1e+20, or inf, got 1e+21"),
        (small(budgets=[8, 3, 8.0]), "budgets[2]", "8 is given twice"),
        (small(accountant="prv"), "accountant", "must be one of 'rdp' or 'tight', got prv"),
        (small(training__batch_per="us"), "training.batch_per", "must be one of 'hospital' or 'federation'"),
        (small(training__spare_steps=-1), "training.spare_steps", "must be at least 0"),
        (small(target__margin=0), "target.margin", "must be above 0"),
        ({**SMALL, "image": 28}, "image", "must be a mapping, got 28"),
        ({name: value for name, value in SMALL.items() if name != "task"}, "task", "is missing"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_what_is_accepted(value: Any, key: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_consortium(value)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)
