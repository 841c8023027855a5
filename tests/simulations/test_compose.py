"""A command line becomes typed settings, or one line that names the key and what it accepts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hbdp_fed.errors import UserError
from simulations import schema
from simulations.compose import choices, compose_run, typed, typed_as
from simulations.schema import BudgetConfig


def test_the_defaults_are_the_users_own_command() -> None:
    assert typed(compose_run([])) == typed(compose_run(["clients=5", "eps=1e12"]))


@pytest.mark.parametrize(("text", "value"), [("1e12", 1e12), ("1E+6", 1e6), ("8", 8.0), ("inf", math.inf)])
def test_a_budget_is_a_float_however_it_is_written(text: str, value: float) -> None:
    eps = typed(compose_run([f"eps={text}"])).eps
    assert isinstance(eps, float)
    assert eps == value


def test_a_group_brings_its_own_options() -> None:
    config = typed(compose_run(["data=phantom", "data.num_train=30", "engine=inprocess"]))
    assert config.data.num_train == 30  # type: ignore[attr-defined]
    assert config.engine.name == "inprocess"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["clients=3", "eps=8"],
        ["eps=inf", "training.rounds=4", "adversary.surfaces=[update,aggregate]", "adversary.hospitals=[]"],
        ["data=pneumoniamnist", "model=resnet9", "model.width=8", "engine=ray", "engine.workers=2"],
        ["experiment=ziller_ham10000_small", "training.learning_rate=0.5", "data.image_size=32"],
        ["model=monai", "model.net=DenseNet121", "model.args={init_features: 8, norm: {name: GROUP, num_groups: 4}}"],
        ["federation.profiles={hospital-01: {compute: 2.0}}", "name='a: b'", "run_dir=null"],
        ["clients=3", "clients=4"],
    ],
)
def test_settings_are_what_hydra_itself_makes_of_them(arguments: list[str]) -> None:
    """Composing takes a copy of what was composed before; Hydra, asked anew, says the same."""
    signed = [f"++{text}" if text.startswith(("model.args=", "federation.profiles=")) else text for text in arguments]
    schema.register()
    with initialize_config_module(config_module="configs", version_base="1.3"):
        expected = compose("run", overrides=signed)
    OmegaConf.resolve(expected)
    assert OmegaConf.to_container(compose_run(arguments)) == OmegaConf.to_container(expected)


def test_no_configuration_changes_another_one() -> None:
    first = compose_run(["clients=3"])
    first.clients = 7
    first.adversary.thresholds.append(0.1)
    assert compose_run(["clients=3"]).clients == 3
    assert compose_run([]).adversary.thresholds == [0.8]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("clinets=5", r"^clinets: there is no such setting; did you mean 'clients'\?$"),
        ("rounds=3", r"^rounds: .*did you mean 'training\.rounds'\?$"),
        ("data.num_tran=3", r"did you mean 'data\.num_train'\?"),
        ("zzzzzzzz=1", r"^zzzzzzzz: .*the settings are: .*clients.*training\.learning_rate"),
        ("eps=abc", r"^eps: Value 'abc' of type 'str' is not a number"),
        ("clients=2.5", r"^clients: .* is not a whole number"),
        (
            "data=nosuch",
            r"^data: 'nosuch' is not known; choose one of: breastmnist, chest_xray, dicom, ham10000, imagefolder, "
            r"medmnist, msd, nifti, phantom, pneumoniamnist, radimagenet$",
        ),
        (
            "experiment=nosuch",
            r"^experiment: 'nosuch' is not known; choose one of: msd_hippocampus, .*ziller_ham10000, "
            r"ziller_ham10000_small, ziller_msd_liver, "
            r"ziller_msd_liver_small, ziller_radimagenet, ziller_radimagenet_small$",
        ),
        ("data=null", r"^data: 'None' is not known"),
        ("experiment=null", r"^experiment: 'None' is not known"),
        ("engine=slurm", r"^engine: 'slurm' is not known; choose one of: inprocess, ray, superlink$"),
        ("training=3", r"^training: is a section; set one of: training\.rounds"),
        ("data.name=phantom", r"^data\.name: there is no such setting"),
        ("+extra=1", r"cannot be added or removed"),
        ("~seed", r"cannot be added or removed"),
        ("clients", r"^clients: expected key=value"),
        ("clients=[1", r"^clients: cannot be read: no viable alternative at input '\[1'"),
        ("name=a!b", r"^name: cannot be read: it has a character that needs quotes of its own, as in"),
        (f"clients={'1' * 5000}", r"^clients: cannot be read: Exceeds the limit"),
        (f"name={'[' * 3000}", r"^name: must have at most 20 brackets within each other"),
        (f"federation.profiles={'{a: ' * 300}1{'}' * 300}", r"^federation\.profiles: must have at most 20 brackets"),
        (f"name={'x' * 40_000}", r"^name: must have at most 30000 letters, got 40005"),
        ("name=${oc.env:HOME}", r"^name: must not hold \$\{\.\.\.\}: values stand for themselves"),
        ("federation.profiles={default: {latency_s: ${eps}}}", r"^federation\.profiles: must not hold"),
        ("eps=???", r"^eps: is missing"),
        ("federation.faults=[???]", r"^federation\.faults\[0\]: is missing"),
        ("data.recipes=[{eps: 1}]", r"^data\.recipes\[0\]\.\w+: is missing"),
        ("data@x=phantom", r"^data@x: keys can only be set as they are"),
        (f"seed={2**53 + 1}", r"^seed: must be a whole number up to 2\^53"),
        ("federation.profiles={null: 1}", r"the keys of a mapping must be names, got null"),
        ("clients=1,2", r"^clients: takes one value; a list is written in brackets"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_it(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        compose_run([argument])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sampel_rate=1", r"^sampel_rate: there is no such setting; did you mean 'sample_rate'\?$"),
        ("data=phantom", r"^data: there is no such setting"),
        ("clients=3", r"^clients: there is no such setting"),
        ("budgets=8", r"^budgets: .* is not a list, which is written as \[1,2\]$"),
        ("budgets=1,8", r"^budgets: takes one value; a list is written in brackets"),
        ("budgets=[1,abc]", r"^budgets\[1\]: Value 'abc' of type 'str' is not a number"),
        ("steps=1.5", r"^steps: .* is not a whole number"),
        ("steps", r"^steps: expected key=value, for example budgets="),
    ],
)
def test_another_program_has_its_own_settings(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose_run([argument], config_name="budget")


def test_another_program_is_composed_to_its_own_type() -> None:
    config = typed_as(BudgetConfig, compose_run(["budgets=[1,1e6,inf]"], config_name="budget"))
    assert config.budgets == [1.0, 1e6, math.inf]
    assert all(isinstance(eps, float) for eps in config.budgets)


def test_an_option_of_another_data_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.num_train: there is no such setting"):
        compose_run(["data=pneumoniamnist", "data.num_train=3"])


def test_every_choice_composes() -> None:
    for group in ("data", "model", "engine"):
        for name in choices(group):
            section = getattr(typed(compose_run([f"{group}={name}"])), group)
            assert section.name == name


def test_a_preset_sets_many_sections_and_each_key_can_be_set_after_it() -> None:
    preset = typed(compose_run(["experiment=ziller_ham10000"]))
    assert (preset.data.name, preset.model.name, preset.partition.scheme) == ("ham10000", "resnet9", "natural")
    given = ["training.epochs=null", "training.rounds=3", "data.image_size=32", "model.width=8", "name=mine"]
    # Wherever on the command line they stand.
    for arguments in (["experiment=ziller_ham10000", *given], [*given, "experiment=ziller_ham10000"]):
        changed = typed(compose_run(arguments))
        assert (changed.training.epochs, changed.training.rounds, changed.name) == (None, 3, "mine")
        assert (changed.data.image_size, changed.model.width) == (32, 8)  # type: ignore[attr-defined]
        assert changed.training.expected_batch == preset.training.expected_batch == 2048


def test_a_preset_does_not_keep_anyone_from_another_model_or_engine() -> None:
    config = typed(compose_run(["experiment=ziller_ham10000", "model=cnn", "engine=inprocess"]))
    assert (config.data.name, config.model.name, config.engine.name) == ("ham10000", "cnn", "inprocess")
    assert config.training.max_grad_norm == 9.0


def test_a_setting_that_the_presets_data_set_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.num_train: there is no such setting"):
        compose_run(["experiment=ziller_ham10000", "data.num_train=3"])
    with pytest.raises(UserError, match=r"^data\.task: Key 'task' not in 'PhantomConfig'$"):
        compose_run(["experiment=ziller_ham10000", "data=phantom"])


def test_composing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose_run(["clients=3"])
    assert list(tmp_path.iterdir()) == []
