"""What is written down of every answer: a line for people and programs, and a charge in the privacy ledger."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import RoundReport
from hbdp_fed.federation.preflight import Sizing
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.privacy import epsilon_schedule
from hbdp_fed.privacy.ledger import ChargeEntry, Ledger, PlanEntry, RefusalEntry
from hbdp_fed.training.pace import UPLOAD_BYTES
from hbdp_fed.types import DpSgdParams
from simulations.prepare import Prepared
from simulations.probe import PROBE_STEPS
from simulations.run_folder import RunFolder
from simulations.secure import SumFigures, least_noise
from simulations.site_logs import Spent, log_failure, log_report

_NEVER_CHARGED = ("refused", "duplicate")
"""Failures of which nothing was computed: the hospital said no, or had been charged for the first answer."""


@dataclass
class Course:
    """How the federation went.

    Attributes:
        startup_s: Seconds from when everything was prepared until all hospitals had answered the roll-call.
        rounds_s: Seconds of all rounds and probes, without those of a run that was interrupted.
        client_compute_s: Seconds of the hospitals' own work in them, added up.
        answers: Answers that were used, probes included.
        failures: Answers that were not, as plain figures: ``hospital``, ``round``, ``kind``.
        steps: By hospital, how many steps it was charged.
        clipped_sum: By hospital, the smallest ratio of its noise to the spacing of the numbers that clipped gradients
            were summed in, over all rounds and probes; NaN without noise.
        ledger: How many lines the privacy ledger has at the end, and the last one's hash.
        sums: What secure aggregation came to, in the rounds that used it.
        sizing: How many hospitals computed at the same time; None before the engine has said so.
    """

    startup_s: float = 0.0
    rounds_s: float = 0.0
    client_compute_s: float = 0.0
    answers: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)
    clipped_sum: dict[str, float] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    sums: SumFigures = field(default_factory=SumFigures)
    sizing: Sizing | None = None

    def to_plain(self) -> dict[str, Any]:
        """What has to be known to go on."""
        return {**{name: getattr(self, name) for name in _KEPT}, "sums": vars(self.sums)}

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Course:
        """The inverse of :meth:`to_plain`."""
        kept = {name: value[name] for name in _KEPT}
        # Strict JSON has no NaN.
        clipped = {name: math.nan if ratio is None else float(ratio) for name, ratio in kept["clipped_sum"].items()}
        sums = SumFigures.from_plain(value.get("sums") or {})
        return cls(**{**kept, "steps": Counter(kept["steps"]), "clipped_sum": clipped, "sums": sums})


_KEPT = ("client_compute_s", "answers", "failures", "steps", "clipped_sum")


class Books:
    """Keeps the books of one run.

    Args:
        prepared: The run.
        folder: Where ``rounds.jsonl`` and the hospitals' logs are written.
        ledger: The privacy ledger. What it holds already, as after a crash, is not charged again.
        course: Counts along.
    """

    def __init__(self, prepared: Prepared, folder: RunFolder, ledger: Ledger, course: Course) -> None:
        self._prepared = prepared
        self._folder = folder
        self._ledger = ledger
        self._course = course
        self._mechanisms = {plan.name: plan.mechanism for plan in prepared.plans}
        self._schedules: dict[DpSgdParams, Any] = {}
        self._seconds: Mapping[str, float] = {}

    def plan(self) -> None:
        """Enter what every hospital has agreed to."""
        self._ledger.extend(
            PlanEntry.of(
                plan,
                epsilon=self._epsilon(plan.name, plan.mechanism.steps),
                delta=self._prepared.config.delta,
                accountant=self._prepared.accountant,
            )
            for plan in self._prepared.plans
        )

    def attendance(self, attendance: Attendance) -> None:
        """Who is there in the round that begins. A straggler computes, and is charged; nobody sees what it computed.

        That is simulated: its answer, which comes too late for anything, is never computed.
        """
        number, self._seconds = attendance.round, attendance.seconds
        for hospital in attendance.planned:
            line = {"kind": self._kind(number), "hospital": hospital, "round": number}
            if hospital in attendance.offline:
                spent = self._epsilon(hospital, self._course.steps[hospital])
                self._folder.append_round({**line, "status": "offline", "simulated_s": None, "eps_spent": spent})
            elif hospital in attendance.late:
                spent = self._charge(hospital, number, self._steps_of(number), delivered=False)
                self._folder.append_round(
                    {
                        **line,
                        "status": "late",
                        "simulated_s": self._seconds[hospital],
                        "bytes": UPLOAD_BYTES * attendance.parameters,
                        "eps_spent": spent,
                    }
                )

    def report(self, report: RoundReport) -> None:
        """An answer that is used."""
        course, hospital = self._course, report.hospital
        course.answers += 1
        course.client_compute_s += 0.0 if math.isnan(report.seconds) else report.seconds
        ratio = report.noise_to_resolution
        course.clipped_sum[hospital] = min(course.clipped_sum.get(hospital, ratio), ratio)
        eps_spent = self._charge(hospital, report.round, report.steps, delivered=True)
        self._folder.append_round(
            {
                "kind": self._kind(report.round),
                "hospital": hospital,
                "round": report.round,
                "status": report.status,
                "records": report.records,
                "records_seen": report.records_seen,
                "loss": report.loss,
                "metrics": {
                    "clipped_share": report.clipped_share,
                    "noise_to_resolution": report.noise_to_resolution,
                },
                "seconds": report.seconds,
                "simulated_s": self._seconds[hospital],
                "bytes": report.bytes,
                "eps_spent": eps_spent,
            }
        )
        log_report(self._folder.logs, report, self._spent(hospital, eps_spent), kind=self._kind(report.round))

    def revealed(self, revealed: RevealedSum) -> None:
        """A sum of masked updates. The hospitals in it were charged when they answered."""
        prepared = self._prepared
        plans = [plan for plan in prepared.plans if plan.name in revealed.weights]
        planned = prepared.hyper.rounds * prepared.hyper.local_steps
        noise = least_noise(revealed.grid, plans, revealed.weights, prepared.local, all_steps=planned)
        self._course.sums.add(revealed, noise)

    def failure(self, failure: Failure) -> None:
        """An answer that is not used. What may have been computed, and seen by somebody, is charged.

        Who failed when keys and shares were exchanged has computed nothing, and who failed to release shares was
        charged for its update.
        """
        hospital, number = failure.hospital, failure.round
        # Most rounds have one phase, which needs no name.
        phase = {} if failure.phase == "train" else {"phase": failure.phase}
        self._course.failures.append({"hospital": hospital, "round": number, "kind": failure.kind, **phase})
        if failure.kind == "refused":
            self._ledger.append(RefusalEntry(hospital=hospital, round=number, reason=_last_line(failure.details)))
        if failure.kind in _NEVER_CHARGED or phase:
            eps_spent = self._epsilon(hospital, self._course.steps[hospital])
        else:
            eps_spent = self._charge(hospital, number, self._steps_of(number), delivered=False)
        self._folder.append_round(
            {
                "kind": self._kind(number),
                "hospital": hospital,
                "round": number,
                "status": "failed",
                "failure": failure.kind,
                **phase,
                "error": failure.details,
                "simulated_s": self._seconds[hospital],
                "eps_spent": eps_spent,
            }
        )
        log_failure(self._folder.logs, failure, self._spent(hospital, eps_spent), kind=self._kind(number))

    def largest_epsilon(self) -> float:
        """What the hospital that has spent most has spent so far."""
        most: dict[DpSgdParams, int] = {}
        for hospital, mechanism in self._mechanisms.items():
            most[mechanism] = max(most.get(mechanism, 0), self._course.steps[hospital])
        return max(self._epsilon_of(mechanism, steps) for mechanism, steps in most.items())

    def _spent(self, hospital: str, eps_spent: float) -> Spent:
        return Spent(self._course.steps[hospital], self._mechanisms[hospital].steps, eps_spent)

    def _charge(self, hospital: str, number: int, steps: int, *, delivered: bool) -> float:
        self._course.steps[hospital] += steps
        spent = self._course.steps[hospital]
        eps_spent = self._epsilon(hospital, spent)
        self._ledger.append(
            ChargeEntry(
                hospital=hospital,
                round=number,
                kind=self._kind(number),
                # Seeded noise is the same whenever a round is computed again; noise of the operating system never is.
                noise_id=uuid.uuid4().hex
                if self._prepared.config.privacy.secure_noise
                else f"seed {self._prepared.config.seed}",
                steps=steps,
                steps_spent=spent,
                eps_spent=eps_spent,
                delivered=delivered,
            )
        )
        return eps_spent

    def _epsilon(self, hospital: str, steps: int) -> float:
        return self._epsilon_of(self._mechanisms[hospital], steps)

    def _epsilon_of(self, mechanism: DpSgdParams, steps: int) -> float:
        """What so many steps of a mechanism cost. Hospitals with one mechanism share its schedule."""
        if mechanism not in self._schedules:
            self._schedules[mechanism] = epsilon_schedule(
                noise_multiplier=mechanism.noise_multiplier,
                sample_rate=mechanism.sample_rate,
                delta=self._prepared.config.delta,
                accountant=self._prepared.accountant,
            )
        return float(self._schedules[mechanism](steps))

    def _kind(self, number: int) -> Literal["train", "probe"]:
        return "probe" if number > self._prepared.hyper.rounds else "train"

    def _steps_of(self, number: int) -> int:
        return PROBE_STEPS if self._kind(number) == "probe" else self._prepared.hyper.local_steps


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
