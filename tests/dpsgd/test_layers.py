"""One harness for every layer type: norms and clipped sums equal those of torch.func and of Opacus to 1e-10."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hbdp_fed.dpsgd.layers import RULES, conv, cost, linear, standardized
from hbdp_fed.dpsgd.layers.contribution import Ghost, PerRecord
from hbdp_fed.dpsgd.layers.conv import gradients_by_groups, gradients_by_offsets, weight_gradient
from hbdp_fed.dpsgd.layers.gram import Geometry, convolution_norms
from hbdp_fed.dpsgd.layers.rule import Call
from hbdp_fed.models.planted import Spectrum
from hbdp_fed.models.standardized import WeightStandardizedConv1d, WeightStandardizedConv2d, WeightStandardizedConv3d
from tests.dpsgd.references import REFERENCES, assert_exact, assert_same, clipped, randomised, rows

RECORDS = 8
CONVOLUTIONS = {
    1: (nn.Conv1d, nn.ConvTranspose1d, WeightStandardizedConv1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, WeightStandardizedConv2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, WeightStandardizedConv3d),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": 1},
    "strided_unevenly": {"stride": 3, "bias": False},
    "dilated_in_groups": {"dilation": 2, "padding": 2, "groups": 2},
    "depthwise": {"groups": 4, "bias": False},
}
CONVOLUTION_ONLY: dict[str, dict[str, Any]] = {
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflected_and_strided": {"padding": 2, "padding_mode": "reflect", "stride": 2},
    "same": {"padding": "same", "kernel_size": 2},
    "pointwise": {"kernel_size": 1},
}


@pytest.fixture(params=["ghost", "kept"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of clipping a weight, whichever the cost model would take."""
    way: str = request.param

    def pick(*, positions: int, pixels: int | None, **_: Any) -> bool:
        # Never more than the cost model would allow: a Gram matrix has positions^2 entries.
        return way == "ghost" and max(positions, pixels or 0) <= 2048

    for module in (conv, linear):
        monkeypatch.setattr(module, "gram_is_cheaper", pick)
    return way


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("options", [*OPTIONS, *CONVOLUTION_ONLY])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_are_exact(axes: int, options: str) -> None:
    plain, transposed, standardised = CONVOLUTIONS[axes]
    chosen = {"kernel_size": 3, **(OPTIONS | CONVOLUTION_ONLY)[options]}
    images = rows(RECORDS, 4, *[7] * axes)
    layers = [plain(4, 8, **chosen), standardised(4, 8, **chosen)]
    if options in OPTIONS:
        layers.append(transposed(4, 8, **chosen))
    # Opacus unfolds the images with zeros around them, whatever the padding mode is.
    references = ("torch_func",) if "padding_mode" in chosen else REFERENCES
    for layer in layers:
        # A layer in front, so that the gradient of the input counts as well; one behind, so that errors differ.
        assert_exact(
            nn.Sequential(plain(4, 4, 1), nn.Tanh(), layer, nn.Tanh(), plain(8, 2, 1)), images, references=references
        )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_convolution_with_output_padding_is_exact(axes: int) -> None:
    plain, transposed, _ = CONVOLUTIONS[axes]
    layer = transposed(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    assert_exact(nn.Sequential(plain(4, 4, 1), nn.Tanh(), layer), rows(RECORDS, 4, *[4] * axes))


class AskedForSize(nn.Module):
    """A transposed convolution that is told its output's size when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 3, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.up(images, [10, 10])
        return outputs


def test_a_transposed_convolution_told_its_output_size_is_exact() -> None:
    assert_exact(AskedForSize, rows(RECORDS, 2, 4, 4), references=("torch_func",))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("positions", [(), (5,), (3, 2)])
def test_linear_layers_are_exact_at_any_number_of_positions(positions: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3))
    assert_exact(model, rows(RECORDS, *positions, 6))


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "group_1d": (lambda: nn.GroupNorm(2, 4), (4, 7)),
    "group_2d": (lambda: nn.GroupNorm(2, 4), (4, 5, 6)),
    "group_3d": (lambda: nn.GroupNorm(4, 4), (4, 3, 4, 5)),
    "instance_1d": (lambda: nn.InstanceNorm1d(4, affine=True), (4, 9)),
    "instance_2d": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 5, 6)),
    "instance_3d": (lambda: nn.InstanceNorm3d(4, affine=True), (4, 3, 4, 5)),
    "layer_last": (lambda: nn.LayerNorm(6), (4, 5, 6)),
    "layer_many": (lambda: nn.LayerNorm((5, 6)), (4, 5, 6)),
    "layer_all": (lambda: nn.LayerNorm((4, 5, 6)), (4, 5, 6)),
    "layer_without_bias": (lambda: nn.LayerNorm(6, bias=False), (4, 5, 6)),
    "prelu_shared": (nn.PReLU, (4, 5, 6)),
    "prelu_by_channel": (lambda: nn.PReLU(4), (4, 5, 6)),
    "prelu_of_vectors": (lambda: nn.PReLU(4), (4,)),
}


@pytest.mark.parametrize("name", NORMS)
def test_affine_layers_are_exact(name: str) -> None:
    build, shape = NORMS[name]
    # A weight in front, so that the gradient of the input counts as well.
    model = nn.Sequential(nn.PReLU(), build(), nn.Tanh(), nn.Flatten(), nn.Linear(math.prod(shape), 3))
    # Opacus asks the bias of a layer normalisation whether it is trained, also where there is none.
    assert_exact(model, rows(RECORDS, *shape), references=("torch_func",) if "without" in name else REFERENCES)


class Words(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, **options)
        self.read = nn.Linear(4, 3)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.read(torch.tanh(self.table(indices)))
        return outputs


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
@pytest.mark.parametrize("padding", [None, 2])
def test_embeddings_are_exact_also_where_an_index_repeats(shape: tuple[int, ...], padding: int | None) -> None:
    indices = torch.randint(0, 9, (RECORDS, *shape), generator=torch.Generator().manual_seed(0))
    assert_exact(lambda: Words(padding_idx=padding), indices, references=("torch_func",))


def test_scaled_cosine_coefficients_are_exact() -> None:
    model = nn.Sequential(nn.PReLU(), Spectrum(2 * 5 * 6), nn.Tanh(), nn.Linear(60, 3))
    assert_exact(model, rows(RECORDS, 2, 5, 6))


def test_every_rule_has_a_layer_type_above() -> None:
    tried = {kind for kinds in CONVOLUTIONS.values() for kind in kinds}
    tried |= {type(build()) for build, _ in NORMS.values()} | {nn.Linear, nn.Embedding, Spectrum}
    assert tried == set(RULES)


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight"])
def test_frozen_parameters_stay_out_of_norm_and_sum(frozen: str) -> None:
    model = randomised(nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3), nn.Conv2d(3, 2, 3)))
    dict(model.named_parameters())[frozen].requires_grad_(False)
    images = rows(4, 2, 7, 7)
    found = clipped(model, images)
    assert frozen not in found.total
    assert_same(found, clipped(model, images, grad_mode="torch_func"))


GEOMETRIES = [
    Geometry((3, 2), (1, 1), (1, 0), (1, 2), 1),
    Geometry((3, 3), (2, 1), (1, 1), (1, 1), 2),
    Geometry((3, 3), (2, 3), (2, 0), (1, 2), 1),
    Geometry((1, 1), (1, 1), (0, 0), (1, 1), 2),
    Geometry((5, 5), (1, 1), (0, 0), (1, 1), 1),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("views", [1, 3])
def test_all_ways_to_a_records_gradient_agree(geometry: Geometry, views: int) -> None:
    """The GPU's way runs on a CPU as well, so it is held here; the reference is one record's own weight gradient."""
    records, inside, outside = 4, 4, 6
    inputs = rows(records * views, inside, 9, 8)
    weight = rows(outside, inside // geometry.groups, *geometry.kernel, seed=1)
    positions = conv.convolve(inputs, weight, None, geometry).shape[2:]
    errors = rows(records * views, outside, *positions, seed=2)
    expected = torch.stack(
        [weight_gradient(a, e, weight, geometry) for a, e in zip(inputs.split(views), errors.split(views), strict=True)]
    )
    for found in (
        gradients_by_offsets(inputs, errors, weight, geometry, records),
        gradients_by_groups(inputs, errors, weight, geometry, records),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    norms = convolution_norms(inputs, errors, records=records, geometry=geometry)
    torch.testing.assert_close(norms, expected.flatten(1).square().sum(dim=1), rtol=1e-11, atol=0)


def test_gram_matrices_are_cut_into_chunks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    from hbdp_fed.dpsgd.layers import gram

    inputs, errors = rows(5, 3, 6, 6), rows(5, 4, 6, 6, seed=1)
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1)
    whole = convolution_norms(inputs, errors, records=5, geometry=geometry)
    monkeypatch.setattr(gram, "_CHUNK", {"cpu": 2 * 36 * 36})
    assert torch.equal(convolution_norms(inputs, errors, records=5, geometry=geometry), whole)


def test_deep_layers_take_gram_matrices_and_wide_images_take_gradients() -> None:
    """The two ends where the two ways differ by an order of magnitude; in between the cost model may err a little."""
    common = {"device": "cpu", "dtype": torch.float32, "kernel": (3, 3), "groups": 1}
    deep = cost.gram_is_cheaper(weights=9 * 256 * 256, positions=9, pixels=9, channels=(256, 256), **common)
    wide = cost.gram_is_cheaper(weights=9 * 16 * 16, positions=1024, pixels=1024, channels=(16, 16), **common)
    huge = cost.gram_is_cheaper(weights=10**9, positions=128**2, pixels=128**2, channels=(999, 999), **common)
    assert (deep, wide, huge) == (True, False, False)


@pytest.mark.usefixtures("way")
def test_a_rule_gives_the_form_that_was_chosen(way: str) -> None:
    layer = nn.Conv2d(3, 4, 3)
    call = Call(records=2, trainable={"weight"}, need_input=False, keep=False)
    images = torch.randn(2, 3, 6, 6)
    outputs, saved = RULES[nn.Conv2d].forward(layer, images, None)
    _, found = RULES[nn.Conv2d].backward(layer, saved, torch.randn_like(outputs), call)
    assert isinstance(found["weight"], Ghost if way == "ghost" else PerRecord)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layer", [WeightStandardizedConv2d(3, 5, 3), WeightStandardizedConv2d(3, 5, 3, bias=False)])
def test_standardised_weights_get_the_same_norms_in_bfloat16_as_their_sums(layer: nn.Module) -> None:
    """One record's weighted sum is its gradient: its norm has to be the one that clipping was told."""
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    call = Call(records=1, trainable={"weight"}, need_input=True, keep=False)
    outputs, saved = standardized.STANDARDIZED.forward(layer, images, torch.bfloat16)
    errors = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    _, found = standardized.STANDARDIZED.backward(layer, saved, errors, call)
    told = found["weight"].squared_norms().sqrt()
    true = found["weight"].weighted_sum(torch.ones(1, dtype=torch.float64)).double().norm()
    assert float(told) == pytest.approx(float(true), rel=1e-5)
