"""The rows of a table of budgets, and how they are written: for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hbdp_fed.dpsgd import noise_to_resolution
from hbdp_fed.privacy import calibrate, least_epsilon
from hbdp_fed.privacy.guarantee import best_psnr, protection
from hbdp_fed.privacy.reconstruction import worst_case
from hbdp_fed.strict_json import dumps
from simulations.schema import BudgetConfig

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

_DIGITS = 4
_AT_THE_CEILING = 1e-3


@dataclass(frozen=True)
class BudgetRow:
    """What one budget costs and prevents. All figures are None where no noise keeps the budget.

    Attributes:
        eps: The budget asked for.
        sigma: The noise multiplier that keeps it.
        eps_rdp: Epsilon by the RDP accountant.
        eps_lower: A lower bound of epsilon.
        eps_tight: An upper bound of epsilon, near the lower one.
        worst_case: The largest probability of reconstruction by an adversary who holds candidates.
        relaxed: The same for an adversary who does not know the record.
        relaxed_paper: The formula of Ziller et al. (2024) for that: a reference, not a bound.
        best_psnr: The expected PSNR in dB of the hospital's best reconstructed image under the linear probe.
        noise_to_float32: One step's noise in a weight over the resolution of float32 weights.
        not_reachable: Why no noise keeps the budget; None where one does.
    """

    eps: float
    sigma: float | None = None
    eps_rdp: float | None = None
    eps_lower: float | None = None
    eps_tight: float | None = None
    worst_case: float | None = None
    relaxed: float | None = None
    relaxed_paper: float | None = None
    best_psnr: float | None = None
    noise_to_float32: float | None = None
    not_reachable: str | None = None


def budget_row(config: BudgetConfig, eps: float) -> BudgetRow:
    """Calibrate one budget and compute everything about it."""
    try:
        sigma = calibrate(
            eps=eps,
            delta=config.delta,
            sample_rate=config.sample_rate,
            steps=config.steps,
            accountant=config.accountant,
        )
    except ValueError as error:
        return BudgetRow(eps=eps, not_reachable=str(error))
    figures = protection(
        noise_multiplier=sigma,
        sample_rate=config.sample_rate,
        steps=config.steps,
        delta=config.delta,
        prior=config.prior,
    )
    return BudgetRow(
        eps=eps,
        sigma=sigma,
        eps_rdp=figures.eps_rdp,
        eps_lower=figures.eps_lower,
        eps_tight=figures.eps_tight,
        worst_case=figures.worst_case,
        relaxed=figures.relaxed,
        relaxed_paper=figures.relaxed_paper,
        best_psnr=best_psnr(
            noise_multiplier=sigma,
            sample_rate=config.sample_rate,
            steps=config.steps,
            records=config.records,
            pixels=config.pixels,
            image_rms=config.image_rms,
        ),
        noise_to_float32=_noise_to_float32(config, sigma),
    )


def _noise_to_float32(config: BudgetConfig, sigma: float) -> float:
    std = config.learning_rate * sigma * config.max_grad_norm / (config.sample_rate * config.records)
    return noise_to_resolution(
        noise_std=min(std, LARGEST_FLOAT32), magnitude=config.largest_weight, dtype=torch.float32
    )


@dataclass(frozen=True)
class Column:
    """A column of the table for people: its name, how a cell is written, and what it means to a clinician."""

    name: str
    cell: Callable[[BudgetRow], str]
    meaning: str

    @property
    def header(self) -> str:
        """The name on short lines."""
        return self.name.replace(" ", "\n").replace("/", "/\n")


def significant(value: float | None) -> str:
    """Four significant digits."""
    return "-" if value is None else f"{value:.{_DIGITS}g}"


def probability(value: float | None) -> str:
    """Four significant digits, and near 1 as many nines as there are: only 1 itself is written as 1."""
    if value is None or value <= 0.999 or value >= 1:
        return significant(value)
    left = 1 - value
    return f"1 - {left:.1g}" if left < 1e-9 else f"{value:.{1 - math.floor(math.log10(left))}f}".rstrip("0")


def interval(lower: float | None, upper: float | None) -> str:
    """Both ends with four significant digits, rounded outwards: what lies between them stays between them."""
    if lower is None or upper is None:
        return "-"
    low, high = _rounded(lower, ROUND_FLOOR), _rounded(upper, ROUND_CEILING)
    return low if low == high else f"{low} to {high}"


def _rounded(value: float, rounding: str) -> str:
    if value == 0 or math.isinf(value):
        return significant(value)
    exact = Decimal(value)
    last_digit = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    return significant(float(exact.quantize(last_digit, rounding=rounding)))


COLUMNS: Sequence[Column] = (
    Column(
        "eps",
        lambda row: f"{row.eps:g}",
        "The budget asked for: how much the training may reveal about one patient. Lower is safer; inf is training "
        "without any protection.",
    ),
    Column(
        "sigma",
        lambda row: significant(row.sigma),
        "The noise that keeps the budget, as a multiple of the most that one patient can add to a step. Higher is "
        "safer and costs accuracy: at 1 it is as large as that most, at 0.001 a thousandth of it.",
    ),
    Column(
        "epsilon (RDP)",
        lambda row: significant(row.eps_rdp),
        "What this noise spends by the RDP accountant, the figure to compare with publications. It is never too low, "
        "and above 1000 much too high. Lower is safer.",
    ),
    Column(
        "epsilon (tight)",
        lambda row: interval(row.eps_lower, row.eps_tight),
        "The two numbers between which the true epsilon lies. Lower is safer: up to about 1, nobody can tell with any "
        "confidence whether a patient took part; above about 10, epsilon alone promises little, and the columns of "
        "risk say more.",
    ),
    Column(
        "worst-case risk",
        lambda row: probability(row.worst_case),
        "The chance, at most, that someone who already holds the patient's picture among 1/prior candidates can tell "
        "which one was trained on. Lower is safer: near prior is good (no better than a guess), near 1 is bad (nothing "
        "is hidden from such a person).",
    ),
    Column(
        "relaxed risk",
        lambda row: probability(row.relaxed),
        "The same chance, at most, for someone who does not hold the picture and has to find out what the patient's "
        "trace in the training looks like. Never above the worst-case risk. Lower is safer: near prior is good, near 1 "
        "is bad.",
    ),
    Column(
        "relaxed (paper)",
        lambda row: probability(row.relaxed_paper),
        "The relaxed risk by the formula of Ziller et al. (2024), to compare with that paper. It is not a promise: the "
        "true risk may be higher. Do not decide by it.",
    ),
    Column(
        "best PSNR (dB)",
        lambda row: significant(row.best_psnr),
        "How close to the original the best of all the hospital's pictures can be expected to come out, if a malicious "
        "server plants the simplest model that copies pictures. Lower is safer: as a rule of thumb, below 10 dB is "
        "noise (good), from about 20 dB on a picture can be recognised (bad), above 30 dB it is nearly a copy. It is "
        "no limit: someone who knows what such pictures look like can come closer.",
    ),
    Column(
        "noise/float32",
        lambda row: significant(row.noise_to_float32),
        "Whether the noise survives if weights travel as ordinary float32 numbers. Higher is safer: below about 10 the "
        "noise is no longer effectively Gaussian and epsilon no longer holds, below 1 it is rounded away (bad). The "
        "updates of simulations.run travel in float64, which keeps it.",
    ),
)
"""The columns in their order."""

_COST, _RISK = COLUMNS[:4], (COLUMNS[0], *COLUMNS[4:])


def show_rows(console: Console, config: BudgetConfig, rows: Sequence[BudgetRow]) -> None:
    """The table with its title and how to read it; as two tables where the console is too narrow for one."""
    table = _table(config, rows, COLUMNS, title=_title(config))
    if _width(console, table) <= console.width:
        console.print(table)
    else:
        console.print(_table(config, rows, _COST, title=_title(config)))
        console.print(_table(config, rows, _RISK, title=None))
    for reason in dict.fromkeys(row.not_reachable for row in rows if row.not_reachable is not None):
        console.print(f"Not reachable: {reason}.", markup=False)
    console.print(how_to_read(config, rows), markup=False)


def _width(console: Console, table: Table) -> int:
    """The width at which no cell is broken."""
    return console.measure(table, options=console.options.update(width=10 * console.width)).maximum


def _title(config: BudgetConfig) -> str:
    return (
        f"Budgets: q={config.sample_rate:g}, T={config.steps}, records={config.records}, delta={config.delta:g}, "
        f"accountant={config.accountant}, prior={config.prior:g}, pixels={config.pixels}"
    )


def _table(config: BudgetConfig, rows: Sequence[BudgetRow], columns: Sequence[Column], *, title: str | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column.header, justify="right")
    for row in rows:
        cells = [column.cell(row) for column in columns]
        if row.not_reachable is not None and columns is not _RISK:
            cells[3] = _short_reason(config)
        table.add_row(*cells)
    return table


def _short_reason(config: BudgetConfig) -> str:
    if config.accountant != "rdp":
        return "not reachable"
    return f"not reachable: floor {least_epsilon(delta=config.delta):.3g}"


def how_to_read(config: BudgetConfig, rows: Sequence[BudgetRow]) -> str:
    """A sentence or two under the table: from which budget on the worst-case risk is what it is without noise."""
    ceiling = worst_case(prior=config.prior, noise_multiplier=0.0, sample_rate=config.sample_rate, steps=config.steps)
    known = [(row.eps, row.worst_case) for row in rows if row.worst_case is not None]
    at_ceiling = [f"{eps:g}" for eps, risk in known if risk >= ceiling * (1 - _AT_THE_CEILING)]
    without_noise = f"Without noise the worst-case risk is 1-(1-q)^T(1-prior) = {probability(ceiling)}"
    if not at_ceiling:
        return f"{without_noise}; no row comes within 0.1% of it. A guess alone is right with {config.prior:g}."
    return (
        f"{without_noise}, and within 0.1% it is that at eps={', '.join(at_ceiling)} too: there the noise keeps "
        "nothing from someone who holds the picture. How much it keeps from everybody else is what best PSNR tells."
    )


def as_csv(rows: Sequence[BudgetRow]) -> str:
    """A header and a line a row, with all digits; infinity is ``inf``, no value is empty."""
    names = [field.name for field in fields(BudgetRow)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue()


def as_json(config: BudgetConfig, rows: Sequence[BudgetRow]) -> str:
    """The settings and the rows as strict JSON; infinity is ``"inf"``, no value is null."""
    return dumps({"settings": config, "rows": rows}, indent=2) + "\n"
