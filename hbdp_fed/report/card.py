"""The run card: what a released model is, what was promised and measured, and all that is needed to ask it something.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv 1810.03993), for programs: ``card.json`` lies
beside ``model.safetensors``. Counts below a threshold are not in it, for it is meant to travel with the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hbdp_fed.audit.wording import classes_of, metrics_of, unit_word
from hbdp_fed.errors import DataFileError
from hbdp_fed.report.explained import ADVERSARIES, limits_of
from hbdp_fed.report.shareable import shareable_summary
from hbdp_fed.report.suppression import SMALLEST_COUNT, Withheld, is_withheld
from hbdp_fed.strict_json import harmless, loads, to_plain
from hbdp_fed.types import ModelSpec

SCHEMA, KIND = 1, "run_card"

INTENDED_USE = (
    "To study which privacy budget keeps a model useful and its images unrecoverable, before any patient's data moves. "
    "The model was trained in a simulation. It is no medical device and has been validated for no clinical use."
)

OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "binary": {
        "score": "softmax over the two logits; the score is the probability of class 1",
        "decision": "class 1 where the score is at least point.threshold",
    },
    "multiclass": {"score": "softmax over the logits", "decision": "the class with the largest probability"},
    "multilabel": {
        "score": "sigmoid of each logit",
        "decision": "each finding whose score is at least its place in point.thresholds",
    },
    "segmentation": {"score": "softmax over the logits of each pixel", "decision": "the class with the largest one"},
}
"""By task, what becomes of a model's logits, (N, K) or (N, K, *spatial)."""

_FIGURES = (
    "name", "kind", "surface", "records", "probes", "success_rate", "success_rate_ci95", "criterion",
    "baseline_success_rate", "control_success_rate", "bound", "optimal", "above_bound", "ssim_max",
)  # fmt: skip
_REQUIRED: Mapping[str, type | tuple[type, ...]] = {
    "architecture": dict, "input": dict, "task": str, "class_names": list, "point": dict, "model_file": str,
    "model_sha256": str,
}  # fmt: skip


def run_card(
    summary: Mapping[str, Any],
    *,
    architecture: ModelSpec,
    shape: Sequence[int],
    spacing: Sequence[float] | None = None,
    preparation: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    licence: str | None = None,
    model_file: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    smallest: int = SMALLEST_COUNT,
) -> dict[str, Any]:
    """The card of one run, ready for strict JSON.

    Args:
        summary: The run's summary as it is read from ``summary.json``.
        architecture: The released model's.
        shape: Of one image, (C, *spatial).
        spacing: The size of a pixel or voxel in mm, where it is known.
        preparation: How an image came from its file to this form: ``kind``, ``words`` and ``details`` of
            :class:`hbdp_fed.data.Preparation`.
        data_options: The data set's own options.
        licence: Of the data, where it is known.
        model_file: The released weights, whose file's hash is then told.
        settings: The run's resolved settings.
        environment: Versions and machine.
        smallest: Counts from 1 to just below this are null; ``withheld`` says so.
    """
    shown = shareable_summary(summary, smallest=smallest)
    card = {
        "schema": SCHEMA,
        "kind": KIND,
        "task": summary["task"],
        "class_names": list(summary["class_names"]),
        "architecture": {"name": architecture.name, "args": dict(architecture.args)},
        # Of a net that came from elsewhere: what was changed in it, and how far a record's gradient was from its own.
        "model": {
            "replaced": summary.get("model_replaced") or [],
            "gradient_error": summary.get("model_gradient_error"),
        },
        "model_file": "model.safetensors" if model_file is None else model_file.name,
        "model_sha256": summary["model_sha256"],
        "model_file_sha256": None if model_file is None else file_sha256(model_file),
        "input": {
            "shape": list(shape),
            "channels": shape[0],
            "spatial": list(shape[1:]),
            "dtype": "float32",
            "range": [0.0, 1.0],
            "spacing_mm": None if spacing is None else list(spacing),
            "preparation": preparation,
        },
        "output": OUTPUTS.get(summary["task"]),
        "point": summary["utility"].get("point") or {},
        "round": summary["utility"].get("round"),
        "data": {"name": summary["dataset"], "options": data_options, "licence": licence},
        "budget": _budget(shown["privacy"]),
        "utility": _utility(shown),
        "risk": {name: _threat_model(name, entry) for name, entry in shown["risk"].items()},
        "hospitals": summary["clients"],
        "sites": summary.get("sites"),
        "rounds": summary["rounds"],
        "seed": summary["seed"],
        "ledger": summary.get("ledger"),
        "settings": settings,
        "intended_use": INTENDED_USE,
        "limits": list(limits_of(unit_word(summary))),
        "withheld": {"smallest_count": smallest, "meaning": f"null stands for counts from 1 to {smallest - 1}, for "
                     "counts that would tell one of them, and for figures that rest on one"},
        "environment": environment,
    }  # fmt: skip
    plain: dict[str, Any] = to_plain(_null(card))
    return plain


def read_card(path: Path) -> dict[str, Any]:
    """A card as :func:`run_card` made it, with all that is needed to build the model and prepare images.

    Args:
        path: The file, or the run folder that holds it as ``card.json``.

    Raises:
        DataFileError: if it is missing, no JSON or no card.
    """
    file = path / "card.json" if path.is_dir() else path
    try:
        card = harmless(loads(file.read_bytes()))
    except FileNotFoundError as error:
        raise DataFileError(file, "there is no such file; a run writes its card beside model.safetensors") from error
    except (OSError, ValueError) as error:
        raise DataFileError(file, f"is not a readable JSON file ({error})") from error
    if not isinstance(card, dict) or card.get("kind") != KIND:
        raise DataFileError(file, f'is no run card: "kind" must be "{KIND}"')
    if card.get("schema") != SCHEMA:
        raise DataFileError(file, f"has the schema {card.get('schema')!r}, but this version reads {SCHEMA}")
    for name, kind in _REQUIRED.items():
        if not isinstance(card.get(name), kind):
            raise DataFileError(file, f"lacks {name}, which a run card must have")
    _check_parts(file, card)
    return card


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_parts(file: Path, card: Mapping[str, Any]) -> None:
    """The parts that a program builds a model from."""
    architecture, shape = card["architecture"], card["input"].get("shape")
    if not isinstance(architecture.get("name"), str) or not isinstance(architecture.get("args"), dict):
        raise DataFileError(file, "its architecture must have a name and args")
    if not isinstance(shape, list) or len(shape) not in (3, 4) or not all(isinstance(s, int) and s > 0 for s in shape):
        raise DataFileError(file, f"its input.shape must be three or four positive whole numbers, got {shape}")
    if card["task"] not in OUTPUTS:
        raise DataFileError(file, f"its task is {card['task']!r}; known are: {', '.join(sorted(OUTPUTS))}")
    if Path(card["model_file"]).name != card["model_file"]:
        raise DataFileError(file, "its model_file must be the name of a file beside the card")


def _budget(privacy: Mapping[str, Any]) -> dict[str, Any]:
    """What was promised, and how each hospital's noise came to it."""
    told = ("eps", "delta", "unit", "unit_word", "records_per_patient", "adjacency", "accountant", "noise")
    return {
        **{name: privacy.get(name) for name in (*told, "overlap")},
        "hospitals": [dict(entry) for entry in privacy["hospitals"]],
    }


def _utility(summary: Mapping[str, Any]) -> dict[str, Any]:
    metrics = metrics_of(summary)
    by_class = [f"{metric}_{index}" for index, _ in classes_of(summary) for metric in metrics]
    names = [*metrics, *(name for name in by_class if name in summary["utility"])]

    def told(figures: Mapping[str, Any]) -> dict[str, Any]:
        ends = figures.get("ci95") or {}
        counts = {name: figures.get(name) for name in ("records", "groups")}
        return {**counts, **{name: {"value": figures.get(name), "ci95": ends.get(name)} for name in names}}

    hospitals = [{"name": own["name"], **told(own)} for own in summary["utility_per_hospital"]]
    return {
        "metrics": metrics,
        "units": summary.get("units") or {},
        "test": told(summary["utility"]),
        "hospitals": hospitals,
        "worst_hospital": summary["worst_hospital"],
        "subgroups": [
            {"attribute": own["attribute"], "value": own["value"], **told(own)}
            for own in summary["utility_by_subgroup"]
            if not is_withheld(own, ("records", "groups"))
        ],
    }


def _threat_model(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    attacks = [{key: attack.get(key) for key in _FIGURES} for attack in entry["attacks"]]
    return {
        "adversary": ADVERSARIES.get(name),
        "bound": entry.get("bound"),
        "prior": entry.get("prior"),
        "attacks": attacks,
    }


def _null(value: Any) -> Any:
    """None for everything that is withheld."""
    if isinstance(value, Withheld):
        return None
    if isinstance(value, Mapping):
        return {name: _null(part) for name, part in value.items()}
    return [_null(part) for part in value] if isinstance(value, list | tuple) else value
