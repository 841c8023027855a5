"""One model in all modes: the peak memory of each, then their times, turn by turn."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TypeVar

import torch
from cases import Batch, Case, fresh_model, random_batch
from memory import peak_bytes
from modes import BASELINE, Mode, Recipe, Step
from results import Row, Setting

METERED_STEPS = 2
"""The second step is the first that finds the momentum in memory."""

TIMED_SECONDS = 0.2
"""Steps that are shorter are timed several in a row."""

LONGEST_REASON = 200
"""Characters of an error that are kept."""

Say = Callable[[str], None]
"""Told before each measurement what it is."""

Turn = Mapping[Mode, float]
"""Seconds for a step, by mode: one turn of all modes."""

T = TypeVar("T")


def measure(
    case: Case, setting: Setting, modes: Sequence[Mode], *, repeats: int, say: Say, recipe: Recipe | None = None
) -> list[Row]:
    """Measure one case: a row for each mode, in their order.

    Args:
        case: What to train.
        setting: Where.
        modes: The modes. Ratios need :data:`modes.BASELINE` among them.
        repeats: How many turns the modes take, at least 1.
        say: Shows what is going on; called :func:`measurements` times, less often if a mode does not run.
        recipe: Noise, clipping and learning rate.
    """
    device = torch.device(setting.device)
    trial = _Trial(case, device, random_batch(case, device), recipe or Recipe(), say)
    peaks = trial.peaks(modes)
    turns = trial.turns(modes, repeats)
    return [summarise(case, setting, mode, peaks=peaks, turns=turns, error=trial.errors.get(mode)) for mode in modes]


def measurements(modes: Sequence[Mode], repeats: int) -> int:
    """How many measurements a case takes: of each mode its memory, a warm-up and the turns."""
    return len(modes) * (2 + repeats)


@dataclass(frozen=True)
class _Trial:
    """What one case's measurements share; ``errors`` says why a mode does not run."""

    case: Case
    device: torch.device
    batch: Batch
    recipe: Recipe
    say: Say
    errors: dict[Mode, str] = field(default_factory=dict)

    def peaks(self, modes: Sequence[Mode]) -> dict[Mode, int | None]:
        """The modes' peak memory in bytes, each with no other mode's around."""
        if self.device.type == "cuda":
            # What CUDA's libraries take once and for all is not to be the first mode's.
            self._tried(BASELINE, "warm-up", partial(self._first_step, BASELINE))
        return {mode: self._tried(mode, "memory", partial(self._peak, mode)) for mode in modes}

    def turns(self, modes: Sequence[Mode], repeats: int) -> list[Turn]:
        """Build the modes and let them take turns."""
        ready = {mode: self._tried(mode, "warm-up", partial(self._warmed_up, mode)) for mode in modes}
        turns: list[Turn] = []
        for turn in range(repeats):
            seconds: dict[Mode, float] = {}
            for mode, made in ready.items():
                if made is None:
                    continue
                found = self._tried(mode, f"{turn + 1} of {repeats}", partial(self._seconds, *made))
                if found is None:
                    ready[mode] = None  # its memory goes to the others
                else:
                    seconds[mode] = found
            turns.append(seconds)
        return turns

    def _tried(self, mode: Mode, what: str, work: Callable[[], T]) -> T | None:
        """What ``work`` returns. None if it fails, or if the mode failed before; the reason is kept."""
        if mode in self.errors:
            return None
        self.say(f"{self.case.name}: {mode.name}, {mode.precision}, {what}")
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever a library raises is the reason why the mode does not run
            self.errors[mode] = _reason(error)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _build(self, mode: Mode) -> Step:
        return mode.build(fresh_model(self.case, self.device), self.batch, self.recipe)

    def _first_step(self, mode: Mode) -> Step:
        step = self._build(mode)
        step()
        return step

    def _peak(self, mode: Mode) -> int:
        model = fresh_model(self.case, self.device)

        def work() -> None:
            step = mode.build(model, self.batch, self.recipe)
            for _ in range(METERED_STEPS):
                step()

        return peak_bytes(work, self.device)

    def _warmed_up(self, mode: Mode) -> tuple[Step, int]:
        """The mode after its first step, and how many steps to time in a row."""
        step = self._build(mode)
        return step, math.ceil(TIMED_SECONDS / self._seconds(step, 1))

    def _seconds(self, step: Step, times: int) -> float:
        """The time of a step, averaged over several in a row."""
        gc.collect()
        if times > 1:
            # A short step would be charged for the caches that the mode before it has left cold.
            step()
        self._wait()
        started = time.perf_counter()
        for _ in range(times):
            step()
        self._wait()
        return (time.perf_counter() - started) / times

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def summarise(
    case: Case,
    setting: Setting,
    mode: Mode,
    *,
    peaks: Mapping[Mode, int | None],
    turns: Sequence[Turn],
    error: str | None,
) -> Row:
    """The row of one mode: medians of its times and of its ratios to plain SGD, each ratio of one turn."""
    seconds = [] if error else [turn[mode] for turn in turns]
    ratios = [] if error else [turn[mode] / turn[BASELINE] for turn in turns if BASELINE in turn]
    peak, baseline_peak = None if error else peaks[mode], peaks.get(BASELINE)
    return Row(
        model=case.name,
        mode=mode.name,
        precision=mode.precision,
        ratio_to_sgd=_of(statistics.median, ratios),
        peak_memory_ratio=peak / baseline_peak if peak and baseline_peak else None,
        batch=case.batch,
        step_ms=_of(statistics.median, [1e3 * value for value in seconds]),
        ratio_min=_of(min, ratios),
        ratio_max=_of(max, ratios),
        peak_memory_mb=None if peak is None else peak / 1e6,
        error=error,
        **asdict(setting),
    )


def _of(figure: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    return figure(values) if values else None


def _reason(error: Exception) -> str:
    """An exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:LONGEST_REASON]
