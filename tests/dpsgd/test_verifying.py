"""What cannot be clipped per record is found, with the layer that is to blame; what can be passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd import UnequalGradients, check_record_gradients, record_losses
from hbdp_fed.seeding import generator
from tests.dpsgd.references import randomised


class Summed(nn.Module):
    """A residual sum in place, as MONAI's blocks write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.first(x).relu())
        out += x
        return out


class Centred(nn.Module):
    """Takes the batch's mean away: no layer of a known kind, and still it mixes."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


class Doubled(nn.Module):
    """Gives the same outputs in a batch as alone, and another gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out if len(x) == 1 else out.detach() + 2 * (out - out.detach())


class Counting(nn.Module):
    """Remembers what it saw."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().mean().to(self.seen.dtype)
        return x


class HalfRaw(nn.Module):
    """Reads a layer's weight past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.layer.weight)


class Added(nn.Module):
    """A parameter without a layer: torch.func differentiates the module as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.offset).sin()


def model(*middle: nn.Module) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return randomised(net).float()


def check(net: nn.Module, *, count: int = 3, grad_mode: str = "hbdp") -> float:
    draw = generator(0, "verifying")
    images = torch.rand(count, 1, 8, 8, generator=draw)
    return check_record_gradients(net, images, torch.tensor([0, 1, 1][:count]), loss=record_losses, grad_mode=grad_mode)


@pytest.mark.parametrize("grad_mode", ["hbdp", "torch_func"])
@pytest.mark.parametrize(
    "middle", [nn.ReLU, lambda: nn.GroupNorm(2, 4), Summed, Added, lambda: nn.InstanceNorm2d(4, affine=True)]
)
def test_what_keeps_records_apart_passes(middle: Callable[[], nn.Module], grad_mode: str) -> None:
    assert 0 <= check(model(middle()), grad_mode=grad_mode) < 1e-10


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (Centred(), r"'1' \(Centred\) mixes records"),
        (nn.Sequential(nn.ReLU(), Centred()), r"'1\.1' \(Centred\) mixes records"),
        (Doubled(), r"differs from the one it has alone \(relative error .*\), from '1\.layer' \(Conv2d\) on"),
    ],
)
def test_unequal_gradients_are_blamed_on_a_layer(middle: nn.Module, message: str) -> None:
    with pytest.raises(UnequalGradients, match=message):
        check(model(middle))


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), r"'1' \(BatchNorm2d\) mixes records; use GroupNorm"),
        (nn.BatchNorm2d(4), "its buffer '1.running_mean' changes in training"),
        (Counting(), "its buffer '1.seen' changes in training"),
        (nn.Dropout(0.5), "draws from PyTorch's global random state"),
        (HalfRaw(), "uses 1.layer.weight without calling the layer"),
    ],
)
def test_what_cannot_be_clipped_is_refused_with_its_reason(middle: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(model(middle))


def test_a_model_without_a_gradient_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0

    net = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten(), nn.Linear(2, 2, bias=False), Silent())
    with pytest.raises(ValueError, match="no finite gradient that is not zero"):
        check(net)


def test_one_record_cannot_tell() -> None:
    with pytest.raises(ValueError, match="at least 2 records are needed"):
        check(model(nn.ReLU()), count=1)


def test_the_model_is_left_as_it_was() -> None:
    net = model(Summed()).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check(net)
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.dtype == torch.float32 for value in net.parameters())
