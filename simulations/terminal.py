"""What a person sees: the plan, the progress, the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN
from hbdp_fed.types import HospitalPlan

_PLAN_ROWS = 20
_NAMED = 5
_LOG_WIDTH = 120


def make_console() -> Console:
    """The console for results: as wide as the terminal, and wide enough for the tables where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)


class ProgressLine(Protocol):
    """Counts the rounds that are done and says what is going on."""

    def advance(self, note: str) -> None:
        """One more round is done."""
        ...

    def say(self, note: str) -> None:
        """Something begins that takes a while."""
        ...


def show_plan(
    console: Console, plans: Sequence[HospitalPlan], *, title: str, noise_to_resolution: Sequence[tuple[float, float]]
) -> None:
    """A line a hospital: what it agrees to before training.

    The last two columns compare one step's noise with the resolution of floating-point weights: where the first is
    small, sending float32 weights would have rounded the noise away; the second is what the float64 update keeps.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("hospital", "records", "q", "steps", "sigma", "clip", "epsilon", "noise/float32", "noise/float64"):
        table.add_column(name, justify="left" if name == "hospital" else "right")
    for plan, (single, double) in list(zip(plans, noise_to_resolution, strict=True))[:_PLAN_ROWS]:
        m = plan.mechanism
        table.add_row(
            plan.name,
            str(plan.num_records),
            f"{m.sample_rate:.4g}",
            str(m.steps),
            f"{m.noise_multiplier:.4g}",
            _number(m.max_grad_norm),
            _number(plan.eps_rdp),
            f"{single:.3g}",
            f"{double:.3g}",
        )
    if len(plans) > _PLAN_ROWS:
        table.add_row(f"... {len(plans) - _PLAN_ROWS} more", *[""] * 8)
    console.print(table)


@contextmanager
def progress(console: Console, *, rounds: int) -> Iterator[ProgressLine]:
    """Live progress over ``rounds`` rounds with the time left; plain lines where the output is not a terminal."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            yield _Bar(bar, rounds)
    else:
        yield _Lines(console, rounds)


class _Bar:
    def __init__(self, bar: Progress, rounds: int) -> None:
        self._bar = bar
        self._task = bar.add_task("starting the hospitals", total=rounds)

    def advance(self, note: str) -> None:
        self._bar.update(self._task, advance=1, description=note)

    def say(self, note: str) -> None:
        self._bar.update(self._task, description=note)


class _Lines:
    """About ten lines a run, so that a log file stays readable."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console, self._rounds, self._done = console, rounds, 0

    def advance(self, note: str) -> None:
        self._done += 1
        if self._done == self._rounds or self._done % max(1, self._rounds // 10) == 0:
            self._console.print(f"[{self._done}/{self._rounds}] {note}", markup=False, highlight=False)

    def say(self, note: str) -> None:
        self._console.print(note, markup=False, highlight=False)


def show_result(console: Console, summary: Mapping[str, Any]) -> None:
    """The final table: utility, epsilon, what float numbers left of the noise, and risk under each threat model."""
    privacy, utility, risk = summary["privacy"], summary["utility"], summary["risk"]
    title = f"{summary['dataset']}, {summary['model']}, {summary['clients']} hospitals, eps={_number(privacy['eps'])}"
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value")
    table.add_row(
        "utility (test)",
        f"MCC {_number(utility['mcc'])}   AUROC {_number(utility['auroc'])}   accuracy {_number(utility['accuracy'])}",
    )
    rdp, tight = (_largest(hospital[name] for hospital in privacy["hospitals"]) for name in ("eps_rdp", "eps_tight"))
    table.add_row("epsilon spent", f"{rdp} by RDP, in truth at most {tight} (delta {privacy['delta']:g})")
    for line in _noise_lines(summary["noise_to_resolution"]):
        table.add_row("noise/resolution", line)
    for name, entry in risk.items():
        table.add_row(f"risk, {name.replace('_', ' ')}", _bound_line(entry))
        for attack in entry["attacks"]:
            for line in _attack_lines(attack):
                table.add_row("", line)
    console.print(table)


def _largest(values: Iterable[float | str]) -> str:
    return _number(max(math.inf if value == "inf" else float(value) for value in values))


def _noise_lines(hospitals: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    noisy = [hospital for hospital in hospitals if hospital["effectively_gaussian"] is not None]
    if not noisy:
        yield "no noise"
        return
    summed, sent = (min(float(hospital[name]) for hospital in noisy) for name in ("clipped_sum", "float64_delta"))
    yield f"at least {summed:.3g} in the clipped sums, {sent:.3g} in the updates sent"
    coarse = [hospital["name"] for hospital in noisy if not hospital["effectively_gaussian"]]
    if coarse:
        names = ", ".join(coarse[:_NAMED]) + (f" and {len(coarse) - _NAMED} more" if len(coarse) > _NAMED else "")
        yield (
            f"WARNING: below {EFFECTIVELY_GAUSSIAN:g} at {names}: the noise is not effectively Gaussian and can be "
            "rounded off; training.precision=float64 restores it"
        )


def _bound_line(entry: Mapping[str, Any]) -> str:
    if entry["bound"] is None:
        return "theory gives no bound"
    bound, guess = float(entry["bound"]), f"a guess alone: {entry['prior']:.3g}"
    # A bound this near to 1 is no news in its digits.
    return f"no protection: bound above 0.999 ({guess})" if bound > 0.999 else f"at most {bound:.3g} ({guess})"


def _attack_lines(attack: Mapping[str, Any]) -> Iterator[str]:
    if attack["success_rate"] is None:
        yield f"{attack['name']}: no record was in the attacked batches"
        return
    low, high = attack["success_rate_ci95"]
    best = "nothing to show" if attack["ssim_max"] is None else f"best SSIM {attack['ssim_max']:.2f}"
    yield (
        f"{attack['name']}: {attack['success_rate']:.1%} of {attack['records']} records rebuilt "
        f"(95% interval {low:.1%} to {high:.1%}); {best}"
    )
    control = attack["control_success_rate"]
    chance = "" if control is None else f"; records that were not in the batch score {control:.1%}"
    share = "" if attack["share"] is None else f"; share of the gradient norm {attack['share']:.3f}"
    yield f"a guess from public images scores {attack['baseline_success_rate']:.1%}{chance}{share}"


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) or math.isinf(value):
        return "inf"
    return f"{value:.4g}"
