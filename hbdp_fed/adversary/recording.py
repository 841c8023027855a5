"""Observations and reconstructions as files, so that an attack can be rerun from what a run recorded.

A recording called NAME is NAME.json (plain figures) with NAME.safetensors (its own tensors). What many observations
have in common, the public images and the model handed out, lies once in the same folder under the hash of its
content, and the JSON names the hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hbdp_fed.errors import DataFileError
from hbdp_fed.models import read_weights, save_weights, weights_sha256
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Reconstruction,
    ThreatModel,
    Weights,
)
from hbdp_fed.whole_files import write_whole


def save_observation(observation: Observation, folder: Path, name: str) -> None:
    """Write ``observation`` into ``folder`` under ``name``, replacing what has that name.

    What a perfect algorithm is granted is not written: it is truth, and granted anew for every attack.

    Args:
        observation: What to write.
        folder: Made if it is not there.
        name: A plain file name without an extension.
    """
    public, released = observation.public, observation.released
    record = {
        "threat_model": observation.threat_model,
        "architecture": {"name": observation.architecture.name, "args": observation.architecture.args},
        "model_before": _save_shared(observation.model_before, folder, "model"),
        "released": {
            "hospital": released.hospital,
            "round": released.round,
            "num_records": released.num_records,
        },
        "public": {
            "images": _save_shared({"images": public.images}, folder, "public"),
            "mechanism": public.mechanism,
            "optimizer": public.optimizer,
            "expected_batch": public.expected_batch,
            "loss": public.loss,
            "class_weights": public.class_weights,
            "records_per_unit": public.records_per_unit,
            "later_rates": public.later_rates,
        },
    }
    _save(record, released.delta, folder, name)


def load_observation(folder: Path, name: str) -> Observation:
    """The observation called ``name``; tensors come back bit for bit.

    Raises:
        DataFileError: if a file is missing or is no recorded observation.
    """
    record, delta = _load(folder, name)
    try:
        public = record["public"]
        mechanism = public["mechanism"]
        return Observation(
            threat_model=ThreatModel(**record["threat_model"]),
            architecture=ModelSpec(**record["architecture"]),
            model_before=read_weights(folder / f"{record['model_before']}.safetensors"),
            released=ModelUpdate(**record["released"], delta=delta),
            public=PublicSideInformation(
                images=read_weights(folder / f"{public['images']}.safetensors")["images"],
                # An infinite clipping norm is written as "inf".
                mechanism=DpSgdParams(**{**mechanism, "max_grad_norm": float(mechanism["max_grad_norm"])}),
                optimizer=OptimizerSettings(**public["optimizer"]),
                expected_batch=public["expected_batch"],
                loss=public["loss"],
                class_weights=None if public["class_weights"] is None else tuple(public["class_weights"]),
                # Older recordings: units were records, and every release one step.
                records_per_unit=public.get("records_per_unit", 1.0),
                later_rates=tuple(public.get("later_rates", ())),
            ),
        )
    except (KeyError, TypeError) as error:
        raise DataFileError(folder / f"{name}.json", f"is no recorded observation ({error})") from error


def save_reconstruction(reconstruction: Reconstruction, folder: Path, name: str) -> None:
    """Write ``reconstruction`` into ``folder`` under ``name``, replacing what has that name."""
    tensors = {"images": reconstruction.images, "scores": reconstruction.scores}
    if reconstruction.unprocessed is not None:
        tensors["unprocessed"] = reconstruction.unprocessed
    _save({"details": reconstruction.details}, tensors, folder, name)


def load_reconstruction(folder: Path, name: str) -> Reconstruction:
    """The reconstruction called ``name``; tensors come back bit for bit.

    Raises:
        DataFileError: if a file is missing or is no recorded reconstruction.
    """
    record, tensors = _load(folder, name)
    try:
        details = {key: float(value) for key, value in record["details"].items()}
        return Reconstruction(
            images=tensors["images"],
            scores=tensors["scores"],
            details=details,
            unprocessed=tensors.get("unprocessed"),
        )
    except (KeyError, TypeError) as error:
        raise DataFileError(folder / f"{name}.json", f"is no recorded reconstruction ({error})") from error


def recorded_names(folder: Path) -> list[str]:
    """The names of all recordings in ``folder``, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.json"))


def _save(record: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    if Path(name).name != name or not name:
        raise ValueError(f"a recording's name is a plain file name, got '{name}'")
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{name}.safetensors", tensors)
    # Last, so that a recording without its tensors is never listed.
    write_whole(folder / f"{name}.json", dumps(record, indent=2) + "\n")


def _load(folder: Path, name: str) -> tuple[dict[str, Any], Weights]:
    path = folder / f"{name}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataFileError(path, "is not there") from error
    except ValueError as error:
        raise DataFileError(path, f"is not JSON ({error})") from error
    return record, read_weights(folder / f"{name}.safetensors")


def _save_shared(tensors: Mapping[str, Tensor], folder: Path, kind: str) -> str:
    """Write ``tensors`` unless they are there already; returns the file's name without its extension."""
    name = f"{kind}-{weights_sha256(tensors)[:16]}"
    path = folder / f"{name}.safetensors"
    if not path.exists():
        save_weights(path, tensors)
    return name
