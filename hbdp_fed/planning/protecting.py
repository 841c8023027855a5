"""What each budget gives each hospital: the noise of a run, what it prevents, and who is protected least."""

from __future__ import annotations

import math
import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from hbdp_fed.errors import SettingError
from hbdp_fed.planning.consortium import Consortium, HospitalEntry
from hbdp_fed.privacy import Accountant, plan_hospital, protection
from hbdp_fed.privacy.guarantee import best_psnr
from hbdp_fed.privacy.site_policy import SitePolicy, Terms
from hbdp_fed.types import PrivacyBudget

_CERTAIN = 1 - 1e-6
"""Probabilities from here on protect alike: candidates are as good as named, and what is left decides."""

_PROBABILITY_DIGITS, _DECIBEL_DIGITS = 9, 3
"""Differences beyond these decimals are rounding, and no order."""


@dataclass(frozen=True)
class HospitalBudget:
    """One budget at one hospital. All figures are None where no noise keeps the budget.

    Attributes:
        eps: The budget asked for.
        noise_multiplier: sigma, as a run calibrates it.
        eps_rdp: Epsilon by the RDP accountant.
        eps_tight: The two numbers between which the true epsilon lies.
        worst_case: The largest probability of reconstruction by an adversary who holds candidates.
        relaxed: The same for an adversary who does not know the record.
        best_psnr: Expected PSNR in dB of the hospital's best image under the linear probe.
        allowed: Whether there is such noise and the hospital's ceiling allows the budget.
        problem: Why not; None where it is.
    """

    eps: float
    noise_multiplier: float | None = None
    eps_rdp: float | None = None
    eps_tight: tuple[float, float] | None = None
    worst_case: float | None = None
    relaxed: float | None = None
    best_psnr: float | None = None
    allowed: bool = True
    problem: str | None = None


Table = Mapping[str, tuple[HospitalBudget, ...]]
"""By hospital, a row for each budget in the consortium's order."""


@dataclass(frozen=True)
class _Question:
    """All that a hospital's figures depend on."""

    records: int
    expected_batch: float
    steps: int
    eps: float
    delta: float
    accountant: Accountant
    prior: float
    pixels: int
    image_rms: float


def sample_rate(consortium: Consortium, hospital: HospitalEntry) -> float:
    """q: the probability with which each of the hospital's records enters a step."""
    return min(1.0, consortium.expected_batch(hospital) / hospital.records)


def protections(consortium: Consortium, *, processes: int = 1) -> Table:
    """Every budget at every hospital, each combination of records, batch and budget computed once.

    Args:
        consortium: A checked one.
        processes: How many compute at the same time; more than 1 forks this process, where the system can.
    """
    asked = {
        (hospital.name, eps): _question(consortium, hospital, eps)
        for hospital in consortium.hospitals
        for eps in consortium.budgets
    }
    # Small budgets take longest: they come first, so that nobody waits for one at the end.
    distinct = sorted(set(asked.values()), key=lambda question: (question.eps, question.records))
    found = dict(zip(distinct, _answers(distinct, processes), strict=True))
    return {
        hospital.name: tuple(
            _judged(found[asked[hospital.name, eps]], consortium, hospital) for eps in consortium.budgets
        )
        for hospital in consortium.hospitals
    }


def protections_of_one_budget(consortium: Consortium, eps: float) -> Mapping[str, HospitalBudget]:
    """One budget at every hospital; sample rates that differ by rounding alone count as one."""
    alike: dict[float, HospitalBudget] = {}
    table = {}
    for hospital in consortium.hospitals:
        question = _question(consortium, hospital, eps)
        rate = float(f"{sample_rate(consortium, hospital):.12g}")
        if rate not in alike:
            alike[rate] = _answer(question)
        row = alike[rate]
        if row.noise_multiplier is not None:
            row = replace(row, best_psnr=_best(question, row.noise_multiplier))
        table[hospital.name] = _judged(row, consortium, hospital)
    return table


def _question(consortium: Consortium, hospital: HospitalEntry, eps: float) -> _Question:
    return _Question(
        records=hospital.records,
        expected_batch=consortium.expected_batch(hospital),
        steps=consortium.training.steps,
        eps=eps,
        delta=consortium.delta,
        accountant=consortium.accountant,
        prior=consortium.prior,
        pixels=math.prod(consortium.image.shape),
        image_rms=consortium.image.rms,
    )


def _answers(questions: Sequence[_Question], processes: int) -> list[HospitalBudget]:
    count = min(processes, len(questions))
    # Another way than forking would import PyTorch again in every process, which takes longer than most plans.
    if count <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        return [_answer(question) for question in questions]
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(_answer, questions))


def _answer(question: _Question) -> HospitalBudget:
    """The figures, whatever the hospital's ceiling is."""
    try:
        plan = plan_hospital(
            name="",
            num_records=question.records,
            budget=PrivacyBudget(question.eps, question.delta),
            expected_batch=question.expected_batch,
            steps=question.steps,
            max_grad_norm=1.0,
            accountant=question.accountant,
        )
    except SettingError as error:
        return HospitalBudget(eps=question.eps, allowed=False, problem=error.problem)
    mechanism = plan.mechanism
    figures = protection(
        noise_multiplier=mechanism.noise_multiplier,
        sample_rate=mechanism.sample_rate,
        steps=mechanism.steps,
        delta=question.delta,
        prior=question.prior,
    )
    return HospitalBudget(
        eps=question.eps,
        noise_multiplier=mechanism.noise_multiplier,
        eps_rdp=figures.eps_rdp,
        eps_tight=(figures.eps_lower, figures.eps_tight),
        worst_case=figures.worst_case,
        relaxed=figures.relaxed,
        best_psnr=_best(question, mechanism.noise_multiplier),
    )


def _best(question: _Question, sigma: float) -> float:
    return best_psnr(
        noise_multiplier=sigma,
        sample_rate=min(1.0, question.expected_batch / question.records),
        steps=question.steps,
        records=question.records,
        pixels=question.pixels,
        image_rms=question.image_rms,
    )


def _judged(row: HospitalBudget, consortium: Consortium, hospital: HospitalEntry) -> HospitalBudget:
    """The row, held against the hospital's ceiling as a run holds its plan."""
    if hospital.ceiling is None or row.noise_multiplier is None:
        return row
    spent = row.eps_rdp if consortium.accountant == "rdp" else row.eps_tight and row.eps_tight[1]
    assert spent is not None
    policy = SitePolicy(highest_epsilon=hospital.ceiling, lowest_records=0, allowed_tasks=(consortium.task,))
    refusal = policy.refusal(Terms(spent, hospital.records, consortium.task))
    return row if refusal is None else replace(row, allowed=False, problem=f"{hospital.name} refuses: {refusal}")


def refusals(table: Table) -> Mapping[float, str]:
    """The budgets that the consortium cannot have, with the first hospital's reason."""
    found: dict[float, str] = {}
    for rows in table.values():
        for row in rows:
            if row.problem is not None:
                found.setdefault(row.eps, row.problem)
    return found


@dataclass(frozen=True)
class Weakest:
    """The hospital whose records are protected least, under the same budget for all.

    Attributes:
        name: Its own; None where all are protected alike.
        why: In words.
        per_budget: By budget, who is weakest there and by which figures.
    """

    name: str | None
    why: str
    per_budget: tuple[WeakestAt, ...]


@dataclass(frozen=True)
class WeakestAt:
    """The hospital that is protected least at one budget; None where all are alike, or where nobody has the budget."""

    eps: float
    name: str | None
    worst_case: float | None = None
    best_psnr: float | None = None
    noise_multiplier: float | None = None


def weakest(consortium: Consortium, table: Table) -> Weakest:
    """Who is protected least: by the worst-case bound, where that says nothing by the best image, at most budgets."""
    places = range(len(consortium.budgets))
    found = tuple(_weakest_at({name: rows[place] for name, rows in table.items()}) for place in places)
    counted = Counter(entry.name for entry in found if entry.name is not None)
    if not counted:
        return Weakest(None, "All hospitals are protected alike: nothing that protection depends on differs.", found)
    name = counted.most_common(1)[0][0]
    return Weakest(name, _why(consortium, name), found)


def weakest_of(rows: Mapping[str, HospitalBudget]) -> str | None:
    """The name of the hospital that is protected least at one budget; None where there is none."""
    return _weakest_at(rows).name


def _weakest_at(rows: Mapping[str, HospitalBudget]) -> WeakestAt:
    eps = next(iter(rows.values())).eps
    keys = {name: _exposure(row) for name, row in rows.items() if row.noise_multiplier is not None}
    if not keys or len(set(keys.values())) == 1:
        return WeakestAt(eps, None)
    name = max(keys, key=lambda name: keys[name])
    row = rows[name]
    return WeakestAt(eps, name, row.worst_case, row.best_psnr, row.noise_multiplier)


def _exposure(row: HospitalBudget) -> tuple[float, float]:
    """Larger is worse. Where candidates are as good as named everywhere, how well images come out decides."""
    assert row.worst_case is not None
    assert row.best_psnr is not None
    certain = min(row.worst_case, _CERTAIN)
    return round(certain, _PROBABILITY_DIGITS), round(row.best_psnr, _DECIBEL_DIGITS)


def _why(consortium: Consortium, name: str) -> str:
    rates = {hospital.name: sample_rate(consortium, hospital) for hospital in consortium.hospitals}
    own = next(hospital for hospital in consortium.hospitals if hospital.name == name)
    others = [rate for other, rate in rates.items() if other != name]
    spread = f"q = {rates[name]:.3g}, at the others {_span(others)}"
    if rates[name] > max(others) * (1 + 1e-9):
        fewest = own.records == min(hospital.records for hospital in consortium.hospitals)
        return (
            f"{name} holds {'the fewest' if fewest else 'only'} {own.records:,} records{',' if fewest else ''} so that "
            f"a step takes each of them with the highest probability ({spread}): a record takes part more often, and "
            "the noise that the same budget asks for leaves more of it"
        )
    if rates[name] < min(others) * (1 - 1e-9):
        return (
            f"{name} takes each of its {own.records:,} records with the lowest probability ({spread}), so that its "
            "budget asks for the least noise: in the few steps that a record is in, it stands out more"
        )
    return (
        f"all hospitals sample at about the same rate ({spread}), so that the bounds are nearly the same everywhere; "
        f"of the {own.records:,} records of {name} the best image is expected to come out closest"
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"
