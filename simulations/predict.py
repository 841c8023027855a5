"""What a run's released model says of images: ``python -m simulations.predict runs/a images/``."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.errors import SettingError, TrainingDiverged, UserError
from hbdp_fed.inference import Answer, MaskWriter, ModelInput, ReleasedModel, find_images, readers_for
from hbdp_fed.report import read_card
from hbdp_fed.training.device import resolve_device
from hbdp_fed.training.tasks import task_called
from hbdp_fed.types import ModelSpec
from simulations.asking import Asking
from simulations.compose import compose_run, typed_as
from simulations.output import check_format, chosen_format, output_file
from simulations.positional import parted
from simulations.predict_table import as_csv, as_json, show_answers
from simulations.program import OK, error_console, exit_code, make_console
from simulations.run_folder import chosen_folder, create, time_stamp
from simulations.schema import PredictConfig
from simulations.typed_path import typed_path

TABLE, CSV, JSON = "table", "csv", "json"
FORMATS = (TABLE, CSV, JSON)
BY_SUFFIX = {".csv": CSV, ".json": JSON}
SEGMENTATION = "segmentation"
CARD = "card.json"

_ON_BAD_RECORD = "on_bad_record"
_FILE_WIDTH = 160

HELP = """usage: python -m simulations.predict MODEL IMAGES... [key=value ...]

  python -m simulations.predict runs/a scan.png
  python -m simulations.predict runs/a/model.safetensors images/ more/scan-7.jpeg output=answers.csv
  python -m simulations.predict runs/hippocampus volumes/ masks=outlines format=json

MODEL is the folder of a finished run or its model.safetensors; card.json has to lie beside it. IMAGES are files or
folders, which are searched with all that is in them: pictures (PNG, JPEG, TIFF, BMP, WebP), DICOM (.dcm, an image a
file), volumes (NIfTI) and arrays (.npy, .npz: one image or several, channels first, uint8 or numbers in [0, 1],
prepared as the model's data was).

Images are brought to the model's input as its data set's loader would. Where that never scaled any (MedMNIST, the
phantom), pictures of another size are refused. The decision is taken at the operating point that validation chose. A
segmentation writes a mask for every image: NIfTI on the volume's own grid, or a PNG of the picture's size. Images are
taken as they are: the scanners that a run simulates (data.scanner_shift) are no part of this.

settings:
  format=table         table, csv or json; left out, it is what the suffix of output says, and else table
  output=FILE          a file to write instead of the screen
  masks=FOLDER         of a segmentation: where the masks go, a new or empty folder; left out, masks_<time>
  on_bad_record=stop   what becomes of files that cannot be used: stop ends before anything is predicted, skip leaves
                       them out and lists them
  device=auto          auto (CUDA where there is one), cpu or cuda

exit codes: 0 done, 1 the model's answer is no number, 2 something given cannot be used, 130 interrupted

This is a research program, and no model of it is a medical device.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given), failures=(TrainingDiverged,))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        Console(highlight=False, markup=False, soft_wrap=True).print(HELP)
        return OK
    names, settings = parted(given)
    config = typed_as(PredictConfig, compose_run(settings, config_name="predict"))
    if len(names) < 2:
        raise UserError(f"name a model, and images behind it: MODEL IMAGES..., got {' '.join(names) or 'nothing'}")
    return _predict(names, config)


@dataclass(frozen=True)
class _Request:
    """What is asked of whom, checked before the model is loaded."""

    model_file: Path
    card: Mapping[str, Any]
    asking: Asking
    masks: Path | None
    target: Path | None
    form: str


def _predict(names: Sequence[str], config: PredictConfig) -> int:
    device = resolve_device(config.device)
    request = _request(names, config)
    asking, card = request.asking, request.card
    count, errors = len(asking.files), error_console()
    # On the error stream: the standard output holds the answers and nothing else.
    quiet: dict[str, Any] = {"console": errors, "total": count, "transient": True, "disable": not errors.is_terminal}
    if config.on_bad_record == "stop":
        for _ in track(asking.check(), "reading", **quiet):
            pass
    model = ReleasedModel.load(
        request.model_file,
        ModelSpec(card["architecture"]["name"], card["architecture"]["args"]),
        sha256=card["model_sha256"],
        task=task_called(card["task"]),
        class_names=card["class_names"],
        point=card["point"],
        device=device,
    )
    writer = None if request.masks is None else MaskWriter(create(request.masks, key="masks").path)
    answers = [one for _, own in track(asking.answers(model, writer), "predicting", **quiet) for one in own]
    for line in asking.bad.skipped:
        errors.print(f"left out: {line}")
    if not answers:
        raise UserError(f"none of the {count} files could be used")
    _write(request, answers)
    return OK


def _request(names: Sequence[str], config: PredictConfig) -> _Request:
    check_format(config.format, FORMATS)
    bad = BadRecords(config.on_bad_record, key=_ON_BAD_RECORD)
    target = output_file(config.output)
    model_file, card = _model(typed_path("MODEL", names[0]))
    shape, preparation = tuple(card["input"]["shape"]), card["input"].get("preparation") or {}
    wanted = ModelInput(shape, preparation.get("kind"), preparation.get("details") or {})
    files = find_images([typed_path("IMAGES", name) for name in names[1:]])
    return _Request(
        model_file=model_file,
        card=card,
        asking=Asking(files, readers_for(wanted), bad),
        masks=_masks(card, config),
        target=target,
        form=chosen_format(config.format, target, by_suffix=BY_SUFFIX, otherwise=TABLE),
    )


def _model(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """The weights' file and the card that lies beside it."""
    if path.is_dir():
        card = read_card(path)
        return path / card["model_file"], card
    if not path.is_file():
        raise SettingError("MODEL", f"'{path}' does not exist; name the folder of a run or its model.safetensors")
    return path, read_card(path.with_name(CARD))


def _masks(card: Mapping[str, Any], config: PredictConfig) -> Path | None:
    if card["task"] != SEGMENTATION:
        if config.masks is not None:
            raise SettingError("masks", f"are what a segmentation answers; this model's task is {card['task']}")
        return None
    return chosen_folder(config.masks, Path(f"masks_{time_stamp()}").resolve(), key="masks")


def _write(request: _Request, answers: Sequence[Answer]) -> None:
    text = _text(request, answers)
    if request.target is not None:
        request.target.write_text(text, encoding="utf-8")
        make_console().print(f"{request.form}: {request.target}", markup=False, soft_wrap=True)
    elif request.form == TABLE:
        show_answers(make_console(), answers, title=_title(request))
    else:
        sys.stdout.write(text)
    if request.masks is not None and (request.target is not None or request.form == TABLE):
        make_console().print(f"masks: {request.masks}", markup=False, soft_wrap=True)


def _title(request: _Request) -> str:
    card = request.card
    threshold = card["point"].get("threshold")
    at = "" if threshold is None else f", {card['class_names'][1]} from a probability of {threshold:.3f} on"
    return f"{card['architecture']['name']} trained on {card.get('data', {}).get('name', 'unknown data')}{at}"


def _text(request: _Request, answers: Sequence[Answer]) -> str:
    if request.form == CSV:
        return as_csv(answers)
    if request.form == JSON:
        card = request.card
        told = {name: card[name] for name in ("model_sha256", "task", "class_names", "point")}
        return as_json(answers, model={"model": str(request.model_file), **told}, skipped=request.asking.bad.skipped)
    page = io.StringIO()
    show_answers(Console(file=page, width=_FILE_WIDTH, highlight=False), answers, title=_title(request), most=None)
    return page.getvalue()


if __name__ == "__main__":
    sys.exit(main())
