"""TensorBoard: event files in the run's own folder, which ``tensorboard --logdir runs`` finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulations.tracking.contract import Place, Setting, Tracker
from simulations.tracking.figures import final_figures, finite

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


@dataclass(frozen=True)
class _Tensorboard:
    writer: SummaryWriter
    settings: Mapping[str, Setting]

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        for name, value in finite(figures).items():
            self.writer.add_scalar(name, value, number)
        # Who watches sees the round now, and a crash loses nothing.
        self.writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        figures = final_figures(summary)
        # "." keeps the end in the run's folder; otherwise it would be a run of its own in the list.
        self.writer.add_hparams(dict(self.settings), figures, run_name=".", global_step=summary["rounds"])


@contextmanager
def track_in_tensorboard(place: Place) -> Iterator[Tracker]:
    """Write events into ``<run>/tensorboard``; of a run that goes on, rounds that are computed again count once."""
    from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import

    writer = SummaryWriter(str(place.folder / FOLDER), purge_step=place.after + 1)
    try:
        yield _Tensorboard(writer, place.settings)
    finally:
        writer.close()
