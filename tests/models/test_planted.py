from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus import GradSampleModule
from scipy.fft import dctn

from hbdp_fed.dpsgd import clipped_summer, plain_summer
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.models.planted import PlantedModel, dct, dct_matrix, inverse_dct
from hbdp_fed.types import ModelSpec


def spec(**changes: object) -> ModelSpec:
    base = {"name": "cnn", "args": {"in_channels": 1, "num_classes": 2, "width": 4}}
    args = {"in_channels": 1, "num_classes": 2, "base": base, "image_size": [12, 16], "rows": 5, "ceiling": 1e-3}
    return ModelSpec("planted", args | changes)


@given(size=st.integers(1, 40))
def test_the_cosine_transform_is_orthonormal(size: int) -> None:
    matrix = dct_matrix(size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))


def test_the_cosine_transform_is_scipys_and_inverts() -> None:
    for sides in ((11, 14), (5, 6, 7)):
        images = torch.rand(3, 2, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = torch.from_numpy(dctn(images.numpy(), axes=tuple(range(2, images.dim())), norm="ortho"))
        torch.testing.assert_close(dct(images), expected)
        torch.testing.assert_close(inverse_dct(dct(images)), images)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_opacus_accepts_the_model_and_gives_every_parameter_a_gradient_per_record() -> None:
    model = build_model(spec())
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=True)
    wrapped(torch.rand(3, 1, 12, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad_sample.shape == (3, *parameter.shape), name


@pytest.mark.parametrize("base_scale", [1.0, 0.0])
def test_clipped_and_plain_gradients_agree_where_nothing_is_clipped(base_scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = initial_weights(build_model(spec()), generator)
    images, labels = torch.rand(4, 1, 12, 16, generator=generator), torch.tensor([0, 1, 1, 0])
    totals = []
    for make in (
        lambda model: clipped_summer(model, max_grad_norm=1e9, max_physical_batch=3),
        lambda model: plain_summer(model, max_physical_batch=3),
    ):
        model = build_model(spec(base_scale=base_scale))
        load_weights(model, weights)
        totals.append(make(model)(images, labels).total)
    torch.testing.assert_close(totals[0], totals[1], rtol=1e-4, atol=1e-6)


def test_a_silenced_base_has_no_gradient() -> None:
    model = build_model(spec(base_scale=0.0))
    total = plain_summer(model, max_physical_batch=4)(torch.rand(4, 1, 12, 16), torch.tensor([0, 1, 1, 0])).total
    assert all(float(value.abs().max()) == 0 for name, value in total.items() if name.startswith("base."))


def test_the_specification_is_plain_json() -> None:
    assert isinstance(build_model(ModelSpec.from_json(spec().to_json())), PlantedModel)


@pytest.mark.parametrize("wrong", [{"rows": 1}, {"ceiling": 0.0}, {"base_scale": -1.0}, {"nonsense": 1}])
def test_a_bad_argument_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=f"model.planted.*{next(iter(wrong))}"):
        build_model(spec(**wrong))
