"""Starting weights are the file's, to the last name and shape, or the file's and fresh ones where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, save_weights, starting_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec, Weights


def net(num_classes: int = 2, width: int = 4) -> nn.Module:
    return build_model(ModelSpec("cnn", {"in_channels": 1, "num_classes": num_classes, "width": width}))


def drawn(model: nn.Module, seed: int) -> dict[str, Tensor]:
    return dict(initial_weights(model, generator(seed, "starting")))


def stored(folder: Path, weights: Weights) -> Path:
    path = folder / "public.safetensors"
    save_weights(path, weights)
    return path


FRESH = drawn(net(), 0)
GIVEN = drawn(net(), 1)


def test_a_file_of_the_model_gives_all_its_weights_in_the_models_order(tmp_path: Path) -> None:
    found, rest = starting_weights(net(), stored(tmp_path, GIVEN), fresh=FRESH)
    assert list(found) == [name for name, _ in net().named_parameters()]
    assert all(torch.equal(found[name], GIVEN[name]) for name in GIVEN)
    assert rest == ()
    load_weights(net(), found)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype, partial: bool) -> None:
    path = stored(tmp_path, {name: value.to(dtype) for name, value in GIVEN.items()})
    found, _ = starting_weights(net(), path, fresh=FRESH, partial=partial)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, GIVEN[name].to(dtype).float())


def test_a_head_of_another_size_is_named_with_both_shapes_and_the_way_out(tmp_path: Path) -> None:
    path = stored(tmp_path, drawn(net(num_classes=9), 1))
    expected = (
        r"^model\.weights: .*public\.safetensors does not fit the model: "
        r"head\.weight has shape \(9, 16\) in the file, but \(2, 16\) in the model; "
        r"head\.bias has shape \(9,\) in the file, but \(2,\) in the model\. model\.weights_partial=true"
    )
    with pytest.raises(SettingError, match=expected):
        starting_weights(net(), path, fresh=FRESH)


def test_what_fits_is_taken_and_the_rest_is_fresh_where_that_is_asked_for(tmp_path: Path) -> None:
    given = drawn(net(num_classes=9), 1) | {"extra": torch.zeros(3)}
    found, rest = starting_weights(net(), stored(tmp_path, given), fresh=FRESH, partial=True)
    assert rest == ("head.weight", "head.bias")
    assert list(found) == list(FRESH)
    for name, value in found.items():
        assert torch.equal(value, FRESH[name] if name in rest else given[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {name: value for name, value in w.items() if name != "head.bias"}, "head.bias is not in the file"),
        (lambda w: w | {"extra": torch.zeros(1)}, "extra is not in the model"),
        (lambda w: w | {"head.bias": torch.zeros(2, dtype=torch.int64)}, r"head\.bias has type torch\.int64"),
    ],
)
def test_a_missing_or_extra_name_or_a_type_without_fractions_is_refused(
    tmp_path: Path, change: object, message: str
) -> None:
    path = stored(tmp_path, change(GIVEN))  # type: ignore[operator]
    with pytest.raises(SettingError, match=message):
        starting_weights(net(), path, fresh=FRESH)
    starting_weights(net(), path, fresh=FRESH, partial=True)


def test_only_the_first_differences_are_listed(tmp_path: Path) -> None:
    path = stored(tmp_path, {"features.0.weight": GIVEN["features.0.weight"]})
    with pytest.raises(SettingError, match=rf"; and {len(GIVEN) - 1 - 3} more\."):
        starting_weights(net(), path, fresh=FRESH)


@pytest.mark.parametrize("partial", [False, True])
def test_a_file_of_which_nothing_fits_is_refused_whatever_is_asked_for(tmp_path: Path, partial: bool) -> None:
    path = stored(tmp_path, {f"encoder.{name}": value for name, value in GIVEN.items()})
    with pytest.raises(
        SettingError, match=r"model\.weights: .* holds nothing that fits the model: features\.0\.weight"
    ):
        starting_weights(net(), path, fresh=FRESH, partial=partial)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_in_float32_are_refused(tmp_path: Path, value: float, partial: bool) -> None:
    broken = GIVEN["head.bias"].double().clone()
    broken[1] = value
    path = stored(tmp_path, GIVEN | {"head.bias": broken})
    with pytest.raises(SettingError, match=r"model\.weights: .* not finite: head\.bias$"):
        starting_weights(net(), path, fresh=FRESH, partial=partial)


def test_values_that_are_not_taken_may_be_anything(tmp_path: Path) -> None:
    path = stored(tmp_path, GIVEN | {"head.bias": torch.full((9,), float("nan"))})
    _, rest = starting_weights(net(), path, fresh=FRESH, partial=True)
    assert rest == ("head.bias",)


def test_a_missing_file_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"none\.safetensors: there is no such file"):
        starting_weights(net(), tmp_path / "none.safetensors", fresh=FRESH)
