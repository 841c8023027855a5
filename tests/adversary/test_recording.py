from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from hbdp_fed.adversary import (
    load_observation,
    load_reconstruction,
    recorded_names,
    save_observation,
    save_reconstruction,
)
from hbdp_fed.adversary.imprint import ImprintAttack, ImprintDesign, craft_model
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.errors import DataFileError
from hbdp_fed.types import Reconstruction


@pytest.fixture
def observation(world, clip):
    crafted = craft_model(
        world.base, world.weights, world.public_images, ImprintDesign(bins=32, loudness=Loudness(100.0))
    )
    return world.answer(crafted, world.public(clip=clip), world.private_images[:3])


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


def test_an_observation_comes_back_bit_for_bit(observation, tmp_path) -> None:
    save_observation(observation, tmp_path, "hospital-0")
    loaded = load_observation(tmp_path, "hospital-0")
    assert loaded.threat_model == observation.threat_model
    assert loaded.architecture.to_json() == observation.architecture.to_json()
    assert equal(loaded.model_before, observation.model_before)
    assert equal(loaded.released.delta, observation.released.delta)
    assert replace(loaded.released, delta={}) == replace(observation.released, delta={})
    assert torch.equal(loaded.public.images, observation.public.images)
    assert loaded.public.mechanism == observation.public.mechanism
    assert loaded.public.optimizer == observation.public.optimizer
    assert loaded.public.expected_batch == 8.0


def test_an_attack_on_the_recording_gives_the_same_images(observation, tmp_path) -> None:
    save_observation(observation, tmp_path, "hospital-0")
    attack = ImprintAttack()
    results = [
        attack.reconstruct(seen, torch.Generator().manual_seed(1))
        for seen in (observation, load_observation(tmp_path, "hospital-0"))
    ]
    assert torch.equal(results[0].images, results[1].images)
    assert results[0].details == results[1].details


def test_what_observations_have_in_common_is_stored_once(observation, tmp_path) -> None:
    for name in ("hospital-0", "hospital-1"):
        save_observation(observation, tmp_path, name)
    assert recorded_names(tmp_path) == ["hospital-0", "hospital-1"]
    assert len(list(tmp_path.glob("public-*.safetensors"))) == 1
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_the_description_is_strict_json(observation, tmp_path) -> None:
    save_observation(observation, tmp_path, "hospital-0")

    def refuse(constant: str) -> None:
        raise AssertionError(f"not strict JSON: {constant}")

    json.loads((tmp_path / "hospital-0.json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize("count", [0, 2])
def test_a_reconstruction_comes_back_bit_for_bit(count: int, tmp_path) -> None:
    saved = Reconstruction(torch.rand(count, 3, 12, 12), torch.rand(count), {"share": 0.5, "largest": math.inf})
    save_reconstruction(saved, tmp_path / "reconstructions", "hospital-0")
    loaded = load_reconstruction(tmp_path / "reconstructions", "hospital-0")
    assert torch.equal(loaded.images, saved.images)
    assert torch.equal(loaded.scores, saved.scores)
    assert loaded.details == saved.details


def test_missing_and_broken_recordings_are_named(observation, tmp_path) -> None:
    with pytest.raises(DataFileError, match=r"nobody\.json: is not there"):
        load_observation(tmp_path, "nobody")
    save_reconstruction(Reconstruction(torch.zeros(0, 1, 12, 12), torch.zeros(0)), tmp_path, "other")
    with pytest.raises(DataFileError, match=r"other\.json: is no recorded observation"):
        load_observation(tmp_path, "other")
    (tmp_path / "other.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DataFileError, match=r"other\.safetensors: not a readable safetensors file"):
        load_reconstruction(tmp_path, "other")
    with pytest.raises(ValueError, match="plain file name"):
        save_observation(observation, tmp_path, "../elsewhere")
