"""What a sweep varies and what all of its runs share, from the command line."""

from __future__ import annotations

import pytest

from hbdp_fed.errors import UserError
from simulations.compose import compose_run
from simulations.sweep.axes import DEFAULT_BUDGETS, Asked, Axis, take_apart, written


def axes(asked: Asked) -> dict[str, tuple[str, ...]]:
    return {axis.key: axis.values for axis in asked.axes}


def test_several_values_vary_and_one_is_shared() -> None:
    asked = take_apart(["eps=[1,1e9,inf]", "clients=3,10", "model.width=8", "seeds=2", "name=mine"])
    assert axes(asked) == {"clients": ("3", "10"), "eps": ("1", "1e9", "inf")}
    assert asked.fixed == ("model.width=8",)
    assert asked.own == ("seeds=2", "name=mine")
    assert list(asked.combinations()) == [
        {"clients": clients, "eps": eps} for clients in ("3", "10") for eps in ("1", "1e9", "inf")
    ]


def test_budgets_come_in_ascending_order_and_have_a_default() -> None:
    assert axes(take_apart(["eps=[inf,8,1e15,1]"])) == {"eps": ("1", "8", "1e15", "inf")}
    assert axes(take_apart([])) == {"eps": DEFAULT_BUDGETS}
    assert axes(take_apart(["eps=1e6"])) == {"eps": ("1e6",)}


def test_what_a_setting_takes_as_a_list_stays_one_value() -> None:
    asked = take_apart(
        ["eps=8", "adversary.surfaces=[gradient,update]", "training.class_weights=[1,4]", "data=msd",
         "data.image_size=[40,56,40]", "federation.members=[hospital-01]"]
    )  # fmt: skip
    assert axes(asked) == {"eps": ("8",)}
    assert "data.image_size=[40,56,40]" in asked.fixed


def test_a_section_can_vary() -> None:
    asked = take_apart(["data=[phantom,pneumoniamnist]", "partition.scheme=[iid,dirichlet]", "eps=8"])
    assert axes(asked) == {
        "data": ("phantom", "pneumoniamnist"), "partition.scheme": ("iid", "dirichlet"), "eps": ("8",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epz=1"], "epz: there is no such setting; did you mean 'eps'"),
        (["eps=[1,x]"], "eps"),
        (["clients=[3,none]"], "clients"),
        (["eps=[1,1]"], "the same value twice: 1"),
        (["clients=[]"], "varies over no value"),
        (["seed=3"], "a sweep takes seeds="),
        (["run_dir=x"], "a sweep takes sweep_dir="),
        (["data=[phantom,nothing]"], "'nothing' is not known"),
        (["eps"], "expected key=value"),
    ],
)
def test_what_cannot_be_swept_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        list(map(compose_run, (settings for _, settings in take_apart(arguments).samples())))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e6, "1e6"), (1e15, "1e15"), (2.5e9, "2.5e9"), (0.001, "0.001"), (6.2e-5, "6.2e-5"), (8.0, "8"), (3, "3"),
        (float("inf"), "inf"), (True, "true"), (None, "null"), ([1, 0.5], "[1,0.5]"), ("iid", "iid"),
    ],
)  # fmt: skip
def test_values_are_written_as_one_types_them(value: object, text: str) -> None:
    assert written(value) == text


def test_axes_are_what_they_were_after_a_round_trip() -> None:
    assert take_apart([f"eps=[{','.join(DEFAULT_BUDGETS)}]"]).axes == (Axis("eps", DEFAULT_BUDGETS),)
