"""What a model may do with its layers, what is refused, and that the model is left as it was."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal, weight_norm

from hbdp_fed.dpsgd import clipped_summer
from hbdp_fed.dpsgd.grad_modes import tape
from tests.dpsgd.references import assert_exact, assert_same, clipped, randomised, rows


class Tied(nn.Module):
    """An embedding whose table also reads the result out: two layers, one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=2)
        self.read = nn.Linear(4, 7)
        self.read.weight = self.table.weight

    def forward(self, indices: Tensor) -> Tensor:
        outputs: Tensor = self.read(torch.tanh(self.table(indices)))
        return outputs


def test_a_parameter_shared_by_two_layers_is_exact() -> None:
    indices = torch.randint(0, 7, (8, 5), generator=torch.Generator().manual_seed(0))
    assert_exact(Tied, indices, references=("torch_func",))


class Shared(nn.Module):
    """Every kind of layer used twice, the second time at another resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.GroupNorm(3, 3)
        self.up = nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        coarse = torch.tanh(self.norm(self.conv(functional.avg_pool2d(images, 2))))
        fine = torch.tanh(self.norm(self.conv(images)))
        outputs: Tensor = self.up(self.up(coarse) + fine)
        return outputs


def test_a_layer_used_twice_at_two_resolutions_is_exact() -> None:
    assert_exact(Shared, rows(8, 3, 6, 6), references=("torch_func",))


class InPlace(nn.Module):
    """Activations that overwrite their input, as MONAI's nets have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.relu(self.first(images)))
        features += 1
        return functional.leaky_relu_(features, 0.1)


def test_activations_in_place_are_exact() -> None:
    assert_exact(InPlace, rows(8, 3, 7, 7), references=("torch_func",))


class Unknown(nn.Module):
    """A layer without a rule, with a buffer, a child and an argument that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(4))
        self.inner = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, inputs: Tensor, other: Tensor, power: int, scale: float = 1.0) -> Tensor:
        outputs: Tensor = self.inner(inputs * self.slope + self.shift + other) ** power * scale
        return outputs


class AroundUnknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.unknown, self.after = nn.Linear(4, 4), Unknown(), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.before(inputs))
        outputs: Tensor = self.after(torch.tanh(self.unknown(hidden, inputs, 3, scale=0.5)))
        return outputs


def test_a_layer_without_a_rule_is_exact() -> None:
    assert_exact(AroundUnknown, rows(8, 4), references=("torch_func",))


@pytest.mark.parametrize("parametrize", [weight_norm, orthogonal])
def test_a_parametrised_layer_is_exact(parametrize: object) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), parametrize(nn.Linear(5, 5, bias=False)))  # type: ignore[operator]
    model = model.double()
    images = rows(8, 4)
    for multiplicity in (1, 4):
        expected = clipped(model, images, grad_mode="torch_func", multiplicity=multiplicity)
        assert_same(clipped(model, images, multiplicity=multiplicity), expected)


def test_a_subclass_of_a_known_layer_is_not_taken_for_it() -> None:
    class Doubled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    assert_exact(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), Doubled(4, 3)), rows(8, 4), references=("torch_func",))


def test_the_slow_way_is_announced_once_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    tape._announce.cache_clear()
    model = AroundUnknown().double()
    with caplog.at_level(logging.WARNING, logger=tape.__name__):
        for _ in range(2):
            clipped(model, rows(4, 4))
    assert [record.getMessage().split()[0] for record in caplog.records] == ["Unknown"]


def test_dropout_in_a_layer_without_a_rule_draws_for_each_record() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(50, dtype=torch.float64))

        def forward(self, inputs: Tensor) -> Tensor:
            return functional.dropout(inputs * self.weight, 0.5)

    model = Dropping()
    found = clipped(model, torch.ones(2, 50, dtype=torch.float64), max_grad_norm=1e6, loss=lambda o, _: o.sum(dim=1))
    # Each record adds 2 where it was kept: 0, 2 and 4 all occur, which one mask for both would not give.
    assert set(found.total["weight"].tolist()) == {0.0, 2.0, 4.0}


def test_the_model_is_left_as_it_was() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3), nn.Flatten(), nn.Linear(48, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = rows(4, 2, 6, 6)
    expected = model(images)
    summer = clipped_summer(model, max_grad_norm=1.0, max_physical_batch=2)
    summer(images, torch.zeros(4, dtype=torch.int64))
    assert all("forward" not in vars(module) and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(model(images), expected)


def test_the_model_is_left_as_it_was_also_when_it_fails() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(4, 2))
    with pytest.raises(RuntimeError):
        clipped_summer(model, max_grad_norm=1.0, max_physical_batch=2)(rows(4, 3).float(), torch.zeros(4).long())
    assert all("forward" not in vars(module) for module in model.modules())


class Around(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs) + functional.linear(inputs, self.layer.weight)
        return outputs


def test_a_parameter_used_behind_its_layers_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"uses layer\.weight without calling the layer"):
        clipped(Around().double(), rows(4, 4))


def test_a_layer_that_the_forward_pass_leaves_out_gets_zeros() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.used(inputs)
            return outputs

    found = clipped(Half().double(), rows(4, 4))
    assert not found.total["unused.weight"].any()
    assert found.total["used.weight"].any()


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (nn.BatchNorm2d(3), "mixes records; use GroupNorm"),
        (nn.BatchNorm2d(3, affine=False), "mixes records; use GroupNorm"),
        (nn.InstanceNorm2d(3, affine=True, track_running_stats=True), "track_running_stats=False"),
    ],
)
def test_layers_that_mix_or_remember_records_are_refused(layer: nn.Module, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        clipped_summer(nn.Sequential(nn.Conv2d(1, 3, 3), layer), max_grad_norm=1.0, max_physical_batch=8)


def test_a_forward_replaced_on_the_instance_is_refused() -> None:
    layer = nn.Linear(4, 2)
    layer.forward = lambda inputs: inputs  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"Linear\.forward was replaced on the instance"):
        clipped_summer(nn.Sequential(layer), max_grad_norm=1.0, max_physical_batch=8)


def test_an_input_without_the_batch_in_front_is_refused() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.layer(inputs.transpose(0, 1)).transpose(0, 1)
            return outputs

    with pytest.raises(ValueError, match="needs the batch in front"):
        clipped(Turned().double(), rows(3, 5, 4))


def test_what_torch_func_cannot_be_given_is_refused_with_the_layers_name() -> None:
    class ByKeyword(AroundUnknown):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.unknown(inputs, other=inputs, power=2)
            return outputs

    with pytest.raises(ValueError, match="Unknown is given a tensor by keyword"):
        clipped(ByKeyword().double(), rows(3, 4))


@pytest.mark.parametrize(("rows_given", "multiplicity", "physical"), [(5, 2, 4), (4, 0, 4), (4, 1, 0)])
def test_numbers_that_do_not_fit_are_refused(rows_given: int, multiplicity: int, physical: int) -> None:
    with pytest.raises(ValueError, match=r"multipl|max_physical_batch"):
        clipped(nn.Linear(4, 2).double(), rows(rows_given, 4), multiplicity=multiplicity, max_physical_batch=physical)
