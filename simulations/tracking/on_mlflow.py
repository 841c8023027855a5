"""MLflow: the server that ``MLFLOW_TRACKING_URI`` names, or a database file beside the run's folder.

The file is SQLite because MLflow refuses its older store of plain files by default.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbdp_fed.errors import SettingError
from simulations.tracking.contract import Place, Tracker
from simulations.tracking.figures import final_figures, finite

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS, KEPT = "mlflow.db", "mlartifacts", "mlflow.json"
EXPERIMENT = "hbdp_fed"
EVERY_ROUND = "federation/answers"
"""A figure that no round is without."""

_PARAMETERS_AT_ONCE, _LONGEST_PARAMETER = 100, 6000


@dataclass(frozen=True)
class _Mlflow:
    client: MlflowClient
    run_id: str
    logged: int
    say: Callable[[str], None]

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        # MLflow forgets nothing: a round that is computed again would stand there twice.
        if number > self.logged:
            self._log(finite(figures), number)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._log(final_figures(summary), summary["rounds"])
        self._try("the model's hash", lambda: self.client.set_tag(self.run_id, "model", summary["model_sha256"]))

    def end(self, status: str) -> None:
        self._try("the end", lambda: self.client.set_terminated(self.run_id, status))

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._try(f"round {step}", lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def _try(self, what: str, work: Callable[[], object]) -> None:
        """Training does not end because a server does: everything stands in the run's folder as well."""
        from mlflow.exceptions import MlflowException

        try:
            work()
        except MlflowException as problem:
            self.say(f"not tracked by MLflow: {what} ({_first_line(problem)})")


@contextmanager
def track_in_mlflow(place: Place) -> Iterator[Tracker]:
    """A run of MLflow's for the run, the same one when it goes on.

    Its experiment is that of ``MLFLOW_EXPERIMENT_NAME``, by default ``hbdp_fed``.

    Raises:
        SettingError: if MLflow cannot be reached or used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; it is on by default
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        client = MlflowClient(tracking_uri=store_of(place.folder))
        run_id, logged = _known_run(client, place.folder) or (_new_run(client, place), 0)
    except MlflowException as problem:
        raise SettingError("tracking", f"mlflow cannot be used: {_first_line(problem)}") from problem
    tracker = _Mlflow(client, run_id, logged, place.say)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def store_of(folder: Path) -> str:
    """Where the run of a folder is tracked: ``MLFLOW_TRACKING_URI``, or a database in the folder's parent."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.parent / DATABASE}"


def _known_run(client: MlflowClient, folder: Path) -> tuple[str, int] | None:
    """MLflow's run that this one goes on with, and the last round it knows; None if there is none in this store."""
    from mlflow.exceptions import MlflowException

    if not (folder / KEPT).exists():
        return None
    run_id = str(json.loads((folder / KEPT).read_text())["run_id"])
    try:
        client.update_run(run_id, status="RUNNING")
        history = client.get_metric_history(run_id, EVERY_ROUND)
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run_id, max((metric.step for metric in history), default=0)


def _new_run(client: MlflowClient, place: Place) -> str:
    from mlflow.entities import Param

    run_id = str(client.create_run(_experiment(client, place.folder), run_name=place.name).info.run_id)
    client.set_tag(run_id, "folder", str(place.folder))
    settings = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in place.settings.items()]
    for start in range(0, len(settings), _PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=settings[start : start + _PARAMETERS_AT_ONCE])
    (place.folder / KEPT).write_text(json.dumps({"run_id": run_id}) + "\n")
    return run_id


def _experiment(client: MlflowClient, folder: Path) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server knows its own place; MLflow's default for a database is the current folder.
    location = None if os.environ.get("MLFLOW_TRACKING_URI") else str(folder.parent / ARTIFACTS)
    return str(client.create_experiment(name, artifact_location=location))


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
