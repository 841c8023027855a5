"""A real hospital's check of every model that it receives, by reference images that lie in its own folder.

It is the check of a simulation's hospitals (:mod:`hbdp_fed.federation.screened`). Each hospital calibrates it for
itself when the first round of a charter reaches it, on weights of the charter's architecture that it draws. What the
server starts from is no yardstick: the charter's own initial weights may be the trap. Where a federation starts from
published weights, the hospital's people put their own copy beside the reference images. The ranges are kept beside the
agreement's ledger, for the process of the next message.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from hbdp_fed.data.contract import Records, as_floats
from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.federation.agreement import Agreement
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.screened import training_of
from hbdp_fed.federation.site_folder import SiteFolder
from hbdp_fed.models import build_model, initial_weights, starting_weights
from hbdp_fed.screening import MEASURES, Range, References, Screen
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import Weights
from hbdp_fed.whole_files import write_whole

TO_THE_SERVER = "the hospital's check of weights and gradients flags the model"
"""All that a server learns of what was found: figures and limits would tell it how to get past them."""

_FEWEST = 8
"""With fewer images, whether any two share rows says little."""


def references_at(folder: SiteFolder, records: Records, charter: Charter) -> References:
    """The hospital's reference images, held against the records that it trains on.

    Args:
        folder: The hospital's.
        records: Its own; their form alone is looked at.
        charter: What is trained.

    Raises:
        DataFileError: if there are none, or they are of another form than the records or the task.
    """
    found = folder.references()
    if problem := _unlike(found, records, classes=int(charter.architecture.args["num_classes"]), task=charter.task):
        raise DataFileError(folder.references_file, problem)
    return References(as_floats(found.images), found.labels, charter.settings.local.loss)


def trap_in(request: TrainRequest, agreement: Agreement, references: References) -> str | None:
    """What is wrong with the request's model, for the hospital's own people; None if nothing is found.

    Args:
        request: What the server sent, of the charter's architecture.
        agreement: The hospital's side of the charter.
        references: Its reference images.
    """
    verdict = _screen(agreement, references).examine(request.architecture, request.weights)
    return "; ".join(verdict.reasons) or None


@dataclass(frozen=True)
class _Calibration:
    """What is kept of a calibration.

    Attributes:
        sha256: Of all that it was made from, beside the charter.
        seed: Of the labels that they are given; the hospital's own.
        ranges: As :attr:`hbdp_fed.screening.Screen.ranges`.
    """

    sha256: str
    seed: int
    ranges: Mapping[str, Mapping[str, Range]]


def _screen(agreement: Agreement, references: References) -> Screen:
    """The check, calibrated now or before."""
    architecture, file = agreement.charter.architecture, agreement.path / "screening.json"
    made_from = _sha256(agreement.folder)
    kept = _read(file)
    if kept is not None and kept.sha256 == made_from:
        return Screen(architecture, architecture, references, kept.ranges, kept.seed)
    settings = agreement.charter.settings
    screen = Screen.calibrated(
        architecture,
        training_of(agreement.site.plan, settings.local, settings.local_steps),
        references,
        seed=secrets.randbits(62),
        agreed=architecture,
        initial=_published_weights(agreement),
    )
    write_whole(file, dumps(_Calibration(made_from, screen.seed, screen.ranges)))
    images = len(references.images)
    agreement.folder.tell(f"{agreement.charter.name}: calibrated its check of models on {images} reference images")
    return screen


def _read(file: Path) -> _Calibration | None:
    """What was kept; None if nothing was, or not in this form: it is found again."""
    try:
        return TypeAdapter(_Calibration).validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _sha256(folder: SiteFolder) -> str:
    """Of the images, the published weights and the measures: a calibration by others is none."""
    digest = hashlib.sha256()
    for file in (folder.references_file, folder.published_weights_file):
        digest.update(file.read_bytes() if file.exists() else b"")
    for name, measure in MEASURES.items():
        digest.update(f"{name} {measure.below} {measure.above} {measure.unseen}".encode())
    return digest.hexdigest()


def _published_weights(agreement: Agreement) -> list[Weights]:
    """The weights that its people know the federation to start from; none where it starts from drawn ones.

    Raises:
        DataFileError: if nothing in the file fits the charter's model.
    """
    file = agreement.folder.published_weights_file
    if not file.exists():
        return []
    model = build_model(agreement.charter.architecture)
    fresh = initial_weights(model, torch.Generator().manual_seed(secrets.randbits(62)))
    try:
        return [starting_weights(model, file, fresh=fresh, partial=True)[0]]
    except SettingError as error:
        raise DataFileError(file, error.problem.removeprefix(f"{file} ")) from error


def _unlike(references: Records, records: Records, *, classes: int, task: str) -> str | None:
    """How reference images differ from what a hospital trains on; None if they do not."""
    if len(references) < _FEWEST:
        return f"holds {len(references)} images; a model is screened on at least {_FEWEST}"
    for name in ("images", "labels"):
        own, theirs = getattr(records, name).shape[1:], getattr(references, name).shape[1:]
        if own != theirs:
            return f"one of its {name} is {tuple(theirs)}; one of the hospital's records' is {tuple(own)}"
    largest = 1 if task == "multilabel" else classes - 1
    lowest, highest = int(references.labels.min()), int(references.labels.max())
    if lowest < 0 or highest > largest:
        return f"has labels from {lowest} to {highest}; the task has 0 to {largest}"
    return None
