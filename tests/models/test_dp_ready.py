"""A converted module mixes no records, remembers none, draws nothing, and keeps its weights under their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hbdp_fed.models.dp_ready import Replacement, grouped, make_dp_ready, num_groups


def images(count: int = 3, channels: int = 8) -> Tensor:
    return torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(0))


def test_groups_divide_the_channels_and_none_is_a_single_channel_where_it_can_be_helped() -> None:
    for channels in range(1, 600):
        groups = num_groups(channels)
        assert channels % groups == 0
        assert 1 <= groups <= 32
        assert groups == 1 or channels // groups >= 4
    assert [num_groups(channels) for channels in (1, 3, 4, 8, 16, 24, 32, 64, 96, 128, 1024)] == [
        1, 1, 1, 2, 4, 4, 8, 16, 16, 32, 32,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm], ids=lambda kind: kind.__name__
)
def test_batch_norms_become_group_norms_with_the_same_weights(norm: Callable[..., nn.Module]) -> None:
    before = norm(12, eps=1e-3)
    ready = make_dp_ready(nn.Sequential(before))
    (after,) = ready.module.children()
    assert isinstance(after, nn.GroupNorm)
    assert (after.num_groups, after.num_channels, after.eps) == (2, 12, 1e-3)
    assert after.weight is before.weight
    assert after.bias is before.bias
    assert ready.replaced == (Replacement("0", type(before).__name__, "GroupNorm"),)
    assert dict(ready.module.named_buffers()) == {}


def test_what_is_not_affine_or_frozen_stays_so() -> None:
    frozen = nn.BatchNorm2d(8)
    frozen.weight.requires_grad_(False)
    plain, kept = make_dp_ready(nn.Sequential(nn.BatchNorm2d(8, affine=False), frozen)).module.children()
    assert dict(plain.named_parameters()) == {}
    assert [value.requires_grad for value in kept.parameters()] == [False, True]


def test_a_norm_that_is_the_whole_model_is_replaced_too() -> None:
    ready = make_dp_ready(nn.BatchNorm2d(8))
    assert isinstance(ready.module, nn.GroupNorm)
    assert [one.name for one in ready.replaced] == [""]


def test_an_instance_norm_stays_and_forgets_its_records() -> None:
    norms = nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    ready = make_dp_ready(nn.Sequential(*norms))
    stays, forgetful = ready.module.children()
    assert stays is norms[0]
    assert forgetful.weight is norms[1].weight
    assert not forgetful.track_running_stats
    assert dict(ready.module.named_buffers()) == {}
    assert [one.name for one in ready.replaced] == ["1"]


def test_nothing_draws_random_numbers_and_evaluation_is_the_same_function() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Dropout(0.5), nn.Dropout2d(0.3), nn.AlphaDropout(0.1), nn.Dropout(0.0))
    ready = make_dp_ready(model).module.train()
    state = torch.get_rng_state()
    outputs = ready(images())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(outputs, ready.eval()(images()))


def test_stochastic_depth_and_dropout_by_attribute_are_switched_off() -> None:
    from monai.networks.layers.drop_path import DropPath

    attention = nn.MultiheadAttention(8, 2, dropout=0.5)
    ready = make_dp_ready(nn.ModuleDict({"path": DropPath(0.5), "attention": attention}))
    assert ready.replaced == (
        Replacement("path", "DropPath with stochastic depth", "DropPath without stochastic depth"),
        Replacement("attention", "MultiheadAttention with dropout", "MultiheadAttention without dropout"),
    )
    assert attention.dropout == 0.0


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.SiLU])
def test_no_activation_writes_over_its_input(kind: Callable[..., nn.Module]) -> None:
    ready, before = make_dp_ready(nn.Sequential(kind(inplace=True))), images() - 0.5
    after = before.clone()
    outputs = ready.module(after)
    assert torch.equal(before, after)
    assert torch.equal(outputs, kind()(before))
    assert [(one.before, one.after) for one in ready.replaced] == [
        (f"{kind.__name__} in place", f"{kind.__name__} out of place")
    ]


def test_memory_efficient_swish_becomes_what_it_computes() -> None:
    from monai.networks.blocks.activation import MemoryEfficientSwish

    (ours,) = make_dp_ready(nn.Sequential(MemoryEfficientSwish())).module.children()
    assert isinstance(ours, nn.SiLU)
    torch.testing.assert_close(ours(images() * 8 - 4), MemoryEfficientSwish()(images() * 8 - 4))


def test_a_module_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm2d(8)
    ready = make_dp_ready(nn.Sequential(norm, nn.Sequential(norm)))
    first, (second,) = ready.module[0], ready.module[1].children()
    assert first is second
    assert isinstance(first, nn.GroupNorm)
    assert len(ready.replaced) == 1


def test_training_mode_is_kept() -> None:
    ready = make_dp_ready(nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5)).eval()).module
    assert not any(module.training for module in ready.modules())


def test_opacus_finds_nothing_left_to_mend() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.Dropout(0.2),
    )  # fmt: skip
    assert ModuleValidator.validate(model, strict=False) != []
    assert ModuleValidator.validate(make_dp_ready(model).module, strict=False) == []


def test_a_model_that_needs_nothing_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.InstanceNorm2d(8))
    ready = make_dp_ready(model)
    assert ready.module is model
    assert ready.replaced == ()


def test_changes_are_told_by_kind_with_their_names() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.BatchNorm2d(8))
    assert grouped(make_dp_ready(model).replaced) == (
        {"before": "BatchNorm2d", "after": "GroupNorm", "modules": ["0", "2"]},
        {"before": "ReLU in place", "after": "ReLU out of place", "modules": ["1"]},
    )
