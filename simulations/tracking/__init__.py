"""Runs followed from outside: the setting ``tracking`` names who is told of every round and of the end.

Everything that a tracker is told stands in the run folder as well; it is a view for people who compare runs. Losses are
the experimenter's view and outside the guarantee, here as in ``rounds.jsonl``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from hbdp_fed.errors import SettingError, unknown_choice
from simulations.tracking.contract import EPSILON, Place, Tracker
from simulations.tracking.figures import final_figures, flat_settings
from simulations.tracking.on_mlflow import track_in_mlflow
from simulations.tracking.on_tensorboard import track_in_tensorboard

__all__ = [
    "EPSILON", "NO_TRACKER", "TRACKERS", "Place", "Tracker", "check_installed", "final_figures", "flat_settings",
    "tracked",
]  # fmt: skip


@dataclass(frozen=True)
class _Nobody:
    """Tells nobody."""

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, object]) -> None:
        """Nothing."""


NO_TRACKER: Tracker = _Nobody()
"""What follows a run that is not tracked."""


@contextmanager
def _untracked(place: Place) -> Iterator[Tracker]:
    yield NO_TRACKER


@dataclass(frozen=True)
class Kind:
    """A way to track.

    Attributes:
        opens: Opens a tracker for one run, and closes it.
        needs: The module that must be there, if the project's own dependencies do not bring it. The extra is called as
            the tracker is.
    """

    opens: Callable[[Place], AbstractContextManager[Tracker]]
    needs: str | None = None


TRACKERS: Mapping[str, Kind] = {
    "none": Kind(_untracked),
    "tensorboard": Kind(track_in_tensorboard, needs="tensorboard"),
    "mlflow": Kind(track_in_mlflow, needs="mlflow"),
}
"""Trackers by name."""


def check_installed(name: str) -> None:
    """Refuse a tracker that is not known, or whose package is not installed.

    Raises:
        SettingError: saying what to choose or to install.
    """
    if name not in TRACKERS:
        raise unknown_choice("tracking", name, TRACKERS)
    needs = TRACKERS[name].needs
    if needs is not None and importlib.util.find_spec(needs) is None:
        raise SettingError("tracking", f"{name} is not installed; pip install 'hbdp-fed[{name}]' installs it")


def tracked(name: str, place: Place) -> AbstractContextManager[Tracker]:
    """The tracker of a run, a key of :data:`TRACKERS`, open as long as the context lasts.

    Raises:
        SettingError: if it cannot be opened.
    """
    return TRACKERS[name].opens(place)
