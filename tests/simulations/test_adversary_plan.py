"""Which attacks a run is put to: what was asked for is refused with its reason, what was not is left out with it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from hbdp_fed.data import ImageDataset, Records
from hbdp_fed.errors import SettingError
from hbdp_fed.privacy import calibrate
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import OptimizerSettings
from simulations.adversary_plan import (
    AttackPlan,
    asked_for,
    check_adversary,
    check_hospitals,
    observed_rounds,
    plan_attacks,
)
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.schema import AdversaryConfig, RunConfig

EVERY = ("imprint", "trap_weights", "linear_probe", "candidate_matching", "membership")
PROBING, GAMES = EVERY[:3], EVERY[3:]
PLANTED = EVERY[:2]
OF_MEANS = (*EVERY[:2], "loki", *EVERY[2:])
"""With the one attack that there is where means are seen alone."""
OF_HOSPITALS = ("property_inference", "linear_reconstruction")


def dataset(task: str = "binary", *, sides: tuple[int, ...] = (12, 12), val: int = 16, test: int = 63) -> ImageDataset:
    def records(count: int) -> Records:
        return Records(images=torch.zeros(count, 1, *sides), labels=torch.zeros(count, dtype=torch.int64))

    return ImageDataset(
        name="drawn", task=task, class_names=("a", "b"), train=records(8), val=records(val), test=records(test)
    )


@cache
def defaults() -> RunConfig:
    return typed(compose_run([]))


def plan(
    attack: Any = "auto",
    settings: Mapping[str, Any] | None = None,
    *,
    data: ImageDataset | None = None,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    steps: int = 1,
    hospitals: int = 2,
) -> AttackPlan:
    """The plan of a run with these settings, by section and key.

    Without the attacks on whole hospitals, whose tests are in ``test_hospital_games.py``.
    """
    config = deepcopy(defaults())
    for name, value in {"adversary.attack": attack, **(settings or {})}.items():
        section, key = name.split(".")
        assert hasattr(getattr(config, section), key)
        setattr(getattr(config, section), key, value)
    local = LocalSettings(optimizer=OptimizerSettings(optimizer, 0.1, 0.9, weight_decay), max_physical_batch=8)
    found = plan_attacks(config, data or dataset(), local, steps=steps, hospitals=hospitals)
    left_out = tuple(line for line in found.left_out if line.partition(":")[0] not in OF_HOSPITALS)
    return AttackPlan(tuple(name for name in found.attacks if name not in OF_HOSPITALS), left_out)


def every(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """All attacks that there are on what these settings let the adversary see."""
    means = {"aggregate", "global_model"} & set(settings.get("adversary.surfaces", ()))
    return OF_MEANS if means else EVERY


# What was asked for.


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("auto", ["auto"]),
        ("none", ["none"]),
        ("imprint", ["imprint"]),
        (["membership", "imprint"], ["membership", "imprint"]),
        (("linear_probe",), ["linear_probe"]),
    ],
)
def test_a_word_and_a_list_of_words_are_both_understood(wanted: Any, words: list[str]) -> None:
    assert asked_for(wanted) == words


@pytest.mark.parametrize("wanted", ["inversion", ["imprint", "inversion"], 3, None])
def test_an_attack_that_does_not_exist_is_refused_with_all_that_do(wanted: Any) -> None:
    with pytest.raises(SettingError) as error:
        asked_for(wanted)
    assert error.value.key == "adversary.attack"
    assert all(name in str(error.value) for name in (*EVERY, "auto", "none"))


@pytest.mark.parametrize("word", ["auto", "none"])
def test_auto_and_none_stand_alone(word: str) -> None:
    with pytest.raises(SettingError, match=rf"^adversary.attack: auto, all and none stand alone, got imprint, {word}$"):
        asked_for(["imprint", word])


# The plan.


def test_auto_is_every_attack_and_none_is_no_attack() -> None:
    assert plan() == AttackPlan(EVERY)
    assert plan("none") == AttackPlan(())
    assert (plan().probing, plan().games) == (PROBING, GAMES)


def test_attacks_are_run_in_one_order_however_they_are_named() -> None:
    assert plan(["membership", "trap_weights", "imprint", "trap_weights"]).attacks == (
        "imprint",
        "trap_weights",
        EVERY[4],
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (dataset("segmentation"), "segmentation of images"),
        (dataset("multilabel"), "multilabel of images"),
        (dataset("binary", sides=(12, 12, 12)), "binary of volumes"),
    ],
)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_layers_need_images_with_one_label(name: str, data: ImageDataset, what: str) -> None:
    with pytest.raises(SettingError, match=rf"^adversary.attack: {name} rebuilds images .*; this is {what}: leave"):
        plan(name, data=data)
    # Nobody can set another kind of data, so under auto it is no news.
    assert plan(data=data) == AttackPlan(("linear_probe", *GAMES))


@pytest.mark.parametrize(
    ("val", "sides", "remaining"),
    [(7, (12, 12), ("linear_probe", *GAMES)), (3, (12, 12), GAMES), (16, (10, 10), ("linear_probe", *GAMES))],
)
def test_too_few_or_too_small_public_images_rule_out_those_that_need_them(
    val: int, sides: tuple[int, ...], remaining: tuple[str, ...]
) -> None:
    data = dataset(val=val, sides=sides)
    assert plan(data=data) == AttackPlan(remaining)
    for name in EVERY:
        if name not in remaining:
            with pytest.raises(SettingError, match=rf"^adversary.attack: {name} needs "):
                plan(name, data=data)


OBSTACLES: Mapping[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], str]] = {
    "what only probes record": (
        {"federation.record": "probes"}, {}, GAMES, "federation.record: must be all for {}",
    ),
    "records and checkpoints that are not kept": (
        {"federation.record": "probes", "federation.checkpoints": 2}, {}, GAMES,
        "federation.record: must be all, and federation.checkpoints 0, for {}",
    ),
    "checkpoints that are not kept": (
        {"federation.checkpoints": 2}, {}, GAMES, "federation.checkpoints: must be 0 (all kept) for {}",
    ),
    "noise that nobody can draw again": (
        {"privacy.secure_noise": True}, {}, GAMES, "privacy.secure_noise: leaves no way to ",
    ),
    "an optimiser whose updates do not add up over hospitals": (
        {"adversary.surfaces": ["aggregate"]}, {"optimizer": "adamw"}, OF_MEANS,
        "adversary.surfaces: aggregate needs training.optimizer=sgd",
    ),
    "an optimiser whose steps do not add up": (
        {"adversary.surfaces": ["update"]}, {"optimizer": "nadam", "steps": 2}, GAMES,
        "adversary.surfaces: update with training.local_steps=2 needs training.optimizer=sgd",
    ),
    "a server that makes more of the mean": (
        {"adversary.surfaces": ["global_model"], "federation.server_optimizer": "nadam"}, {}, OF_MEANS,
        "adversary.surfaces: global_model needs federation.server_optimizer=none",
    ),
    "weights that decay and differ from hospital to hospital": (
        {"adversary.surfaces": ["aggregate"]}, {"weight_decay": 1e-3}, ("loki",),
        "training.weight_decay: must be 0 for {}: the mean would hold what decayed",
    ),
    "a model with too many rows for too many hospitals": (
        {"adversary.surfaces": ["global_model"]}, {"hospitals": 1000}, ("loki",),
        "adversary.bins: must be at most 233 for {}, got 1024: one model holds as many rows of an image's size",
    ),
    "more decoys than test records": (
        {"adversary.candidates": 65}, {}, GAMES,
        "adversary.candidates: must be at most 64: decoys come from the 63 test records",
    ),
}  # fmt: skip
"""Settings, further circumstances, whom they rule out, and how a person is told."""


@pytest.mark.parametrize(("settings", "circumstances", "ruled_out", "told"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_a_setting_rules_out_is_refused_by_name_and_left_out_with_its_reason_otherwise(
    settings: dict[str, Any], circumstances: dict[str, Any], ruled_out: tuple[str, ...], told: str
) -> None:
    found = plan("auto", settings, **circumstances)
    assert found.attacks == tuple(name for name in every(settings) if name not in ruled_out)
    assert len(found.left_out) == len(ruled_out)
    key, _, problem = told.partition(": ")
    for name, line in zip(ruled_out, found.left_out, strict=True):
        assert line.startswith(f"{name}: {key} {problem.format(name)}")
        with pytest.raises(SettingError) as error:
            plan([name], settings, **circumstances)
        assert str(error.value).startswith(told.format(name))
    for name in found.attacks:
        assert plan(name, settings, **circumstances) == AttackPlan((name,))


@pytest.mark.parametrize(
    ("settings", "circumstances"),
    [
        # A round of one step can be undone, and whoever is seen alone is no sum.
        ({"adversary.surfaces": ["gradient", "update"]}, {"optimizer": "adamw"}),
        ({"adversary.surfaces": ["aggregate"], "federation.server_optimizer": "nadam"}, {}),
        ({"adversary.surfaces": ["update", "aggregate", "global_model"], "privacy.secure_noise": True}, {"steps": 3}),
        ({"adversary.surfaces": ["gradient", "update", "aggregate", "global_model"]}, {"steps": 3}),
        ({"adversary.candidates": 64}, {}),
    ],
)
def test_what_rules_nothing_out_leaves_every_attack(settings: dict[str, Any], circumstances: dict[str, Any]) -> None:
    assert plan("auto", settings, **circumstances) == AttackPlan(every(settings))


@pytest.mark.parametrize("surfaces", [["gradient"], ["update", "gradient"], "auto"])
def test_where_hospitals_are_seen_alone_loki_is_another_attack(surfaces: Any) -> None:
    """Nobody who leaves the choice open has to be told so."""
    assert plan("auto", {"adversary.surfaces": surfaces}) == AttackPlan(EVERY)
    with pytest.raises(SettingError, match=r"^adversary\.attack: loki takes means apart, .* it is the imprint attack:"):
        plan(["imprint", "loki"], {"adversary.surfaces": surfaces})
    assert plan("loki", {"federation.secure_aggregation": True}) == AttackPlan(("loki",))


# Which rounds the worst case sees.


@pytest.mark.parametrize(
    ("wanted", "only", "expected"),
    [
        (0, [], (1, 2, 3, 4, 5)),
        (2, [], (4, 5)),
        (9, [], (1, 2, 3, 4, 5)),
        (0, [4, 2], (2, 4)),
        (2, [1, 5], (5,)),
        (1, [2], ()),
    ],
)
def test_the_last_rounds_are_seen_or_all_and_of_them_those_that_are_attacked(
    wanted: int, only: list[int], expected: tuple[int, ...]
) -> None:
    adversary = AdversaryConfig(observed_rounds=wanted, rounds=only)
    # What was asked for costs what it costs.
    for cost in (1.0, 1e15):
        assert observed_rounds(adversary, rounds=5, cost_of_round=cost) == expected


def test_without_a_number_as_many_rounds_are_seen_as_do_not_take_long() -> None:
    seen = [len(observed_rounds(AdversaryConfig(), rounds=20, cost_of_round=10.0**power)) for power in range(6, 14)]
    assert seen[0] == 20
    assert seen[-1] == 0
    assert seen == sorted(seen, reverse=True)
    # Ten times the work a round, a tenth of the rounds, and they are the last ones.
    cost = next(10.0**power for power, count in zip(range(6, 14), seen, strict=True) if 0 < count < 20)
    few = observed_rounds(AdversaryConfig(), rounds=20, cost_of_round=cost)
    assert few == tuple(range(21 - len(few), 21))
    many = observed_rounds(AdversaryConfig(), rounds=10**9, cost_of_round=cost / 10)
    assert len(many) == pytest.approx(10 * len(few), abs=10)


# What can be checked without data.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "x"}, "adversary.attack: 'x' is not known; choose one of: all, auto, candidate_matching, "),
        (
            {"surfaces": ["x"]},
            "adversary.surfaces: 'x' is not known; choose one of: aggregate, auto, global_model, gradient",
        ),
        ({"surfaces": []}, "adversary.surfaces: must be different ones of: gradient, update, aggregate, global_model"),
        ({"surfaces": ["update", "update"]}, "adversary.surfaces: must be different ones of: gradient, update"),
        ({"probes": -1}, "adversary.probes: must be at least 0, got -1"),
        ({"bins": 1}, "adversary.bins: must be at least 2, got 1"),
        ({"candidates": 1}, "adversary.candidates: must be at least 2, got 1"),
        ({"targets": 0}, "adversary.targets: must be at least 1, got 0"),
        ({"observed_rounds": -1}, "adversary.observed_rounds: must be at least 0 (all), or null, got -1"),
        ({"thresholds": []}, "adversary.thresholds: must be one or more SSIMs between 0 and 1, got []"),
        ({"thresholds": [0.8, 1.0]}, "adversary.thresholds: must be one or more SSIMs between 0 and 1"),
        ({"thresholds": [0.0]}, "adversary.thresholds: must be one or more SSIMs between 0 and 1"),
        ({"prior": 0.0}, "adversary.prior: must lie strictly between 0 and 1, got 0"),
        ({"prior": 1.0}, "adversary.prior: must lie strictly between 0 and 1, got 1"),
        ({"only_last_model": True}, "adversary.only_last_model: is about the surface global_model: add it to surfaces"),
    ],
)
def test_an_adversary_that_makes_no_sense_is_refused_with_its_key_and_what_it_accepts(
    changes: dict[str, Any], message: str
) -> None:
    check_adversary(AdversaryConfig())
    with pytest.raises(SettingError) as error:
        check_adversary(replace(AdversaryConfig(), **changes))
    assert str(error.value).startswith(message)


def test_hospitals_are_those_of_the_federation_each_once() -> None:
    check_hospitals([], ["a", "b"])
    check_hospitals(["b", "a"], ["a", "b"])
    with pytest.raises(SettingError, match=r"^adversary.hospitals: 'c' is not known; choose one of: a, b$"):
        check_hospitals(["a", "c"], ["a", "b"])
    with pytest.raises(SettingError, match=r"^adversary.hospitals: must be different ones, got a, a$"):
        check_hospitals(["a", "a"], ["a", "b"])


# How many steps the noise is calibrated to.


def prepared(*arguments: str) -> Prepared:
    """A small run of 3 rounds of 2 steps and a probe for each of two attacks, 8 steps in all."""
    small = [
        "engine=inprocess", "clients=2", "data.num_train=60", "data.num_val=60", "data.num_test=20", "model.width=4",
        "training.rounds=3", "training.local_steps=2", "training.expected_batch=6", "eps=8", "adversary.bins=32",
        "adversary.candidates=4", "adversary.attack=[imprint,linear_probe]",
    ]  # fmt: skip
    return prepare(typed(compose_run([*small, *arguments])))


@pytest.mark.parametrize(("arguments", "steps"), [((), 8), (("privacy.steps=8",), 8), (("privacy.steps=300",), 300)])
def test_noise_is_calibrated_to_the_steps_that_privacy_counts_or_to_those_of_the_run(
    arguments: tuple[str, ...], steps: int
) -> None:
    found = prepared(*arguments)
    expected = calibrate(eps=8, delta=1e-5, sample_rate=0.2, steps=steps, accountant="rdp")
    for hospital in found.plans:
        assert hospital.mechanism.steps == steps
        assert hospital.mechanism.noise_multiplier == expected
        assert hospital.eps_rdp == pytest.approx(8, rel=0.01)
    # The run itself takes no step more for it.
    assert (found.hyper.rounds, found.hyper.local_steps, found.probes) == (3, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "taken"), [((), 8), (("adversary.probes=3",), 12), (("adversary.attack=none",), 6)]
)
def test_noise_for_fewer_steps_than_the_run_takes_is_refused(arguments: tuple[str, ...], taken: int) -> None:
    assert prepared(*arguments, f"privacy.steps={taken}").plans[0].mechanism.steps == taken
    with pytest.raises(SettingError) as error:
        prepared(*arguments, f"privacy.steps={taken - 1}")
    assert str(error.value) == f"privacy.steps: must be at least the {taken} steps that the run takes, or null"


def test_noise_for_no_step_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^privacy.steps: must be at least 1, got 0$"):
        prepared("privacy.steps=0")
