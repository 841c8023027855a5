"""A hospital's side of one charter: whether it agrees, what it was charged, and what it has answered.

A server may restart, be restored from an older state or lie. So the hospital decides by what it finds on its own disk:

- it agrees to a charter if its own policy allows what it works out itself from the charter's mechanism, together with
  all that its records were exposed to in earlier federations;
- it answers each round once. The same question again, as after a restart, gets the same answer at no charge. Another
  question in a round that was answered is refused: two answers from the same batch would tell more than was charged;
- a round is charged before it is computed. A computation that ended before its answer was stored is repeated under the
  same charge, since nothing of it had left.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from torch import Tensor

from hbdp_fed.dpsgd import count_patients
from hbdp_fed.errors import Refusal
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import RoundReport, TrainRequest
from hbdp_fed.federation.memory import kept_arrays, kept_records, put_back
from hbdp_fed.federation.settings import Site
from hbdp_fed.federation.site_folder import SiteFolder, settle
from hbdp_fed.models import read_facts, read_parts, read_weights, save_parts, save_weights, title_of, weights_sha256
from hbdp_fed.privacy.history import Segment
from hbdp_fed.privacy.ledger import ChargeEntry, Ledger, PlanEntry, RefusalEntry, verify
from hbdp_fed.privacy.site_policy import Terms
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import ModelUpdate, Weights
from hbdp_fed.whole_files import write_whole

_MOST_AGREEMENTS = 1_000
_MOST_LEDGER_BYTES = 50_000_000
_ANSWERS_KEPT = 2
_MOST_WORKED_OUT = 1_000


def request_digest(request: TrainRequest) -> str:
    """SHA-256 of all that a request asks: the same question has the same digest."""
    digest = hashlib.sha256(f"{request.round}|{request.steps}|{request.architecture.to_json()}|".encode())
    digest.update(weights_sha256(request.weights).encode())
    if request.control is not None:
        digest.update(f"{weights_sha256(request.control.c)}|{sorted(request.control.lost.items())}".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Agreement:
    """One charter at one hospital.

    Attributes:
        folder: The hospital's.
        hospital: Its name.
        charter: The terms.
    """

    folder: SiteFolder
    hospital: str
    charter: Charter

    @property
    def path(self) -> Path:
        """Where all of it is kept."""
        return self.folder.agreements / self.charter.digest[:32]

    @property
    def ledger_file(self) -> Path:
        """The hospital's own ledger of this charter."""
        return self.path / "ledger.jsonl"

    @property
    def site(self) -> Site:
        """The hospital's part of the settings.

        Raises:
            Refusal: if it has none.
        """
        for site in self.charter.settings.sites:
            if site.plan.name == self.hospital:
                return site
        raise Refusal(f"refused: the charter {self.charter.name} does not name {self.hospital}")

    def seek_consent(self, records: int, groups: Tensor | None = None) -> None:
        """Hold the charter against the hospital's own policy and records, and enter the plan in its ledger.

        Args:
            records: How many the hospital holds.
            groups: int64 (records,), equal for records of one patient; None where it does not say.

        Raises:
            Refusal: telling every reason against it.
        """
        self._make_folder()
        refusal = self._reasons(records, groups)
        if refusal is not None:
            raise Refusal(f"refused: {refusal}")
        with Ledger(self.ledger_file) as ledger:
            ledger.append(self._plan())

    def answered(self, request: TrainRequest, digest: str) -> tuple[ModelUpdate, RoundReport] | None:
        """The answer that was given to the same request before; None if none was.

        Args:
            request: What is asked.
            digest: Its :func:`request_digest`, which takes a pass over all weights.

        Raises:
            Refusal: if the round was answered to another request, or is over.
        """
        charges = self._charges()
        before = charges.get(request.round)
        if before is not None and before != digest:
            raise Refusal(f"refused: round {request.round} was answered before, to another request")
        stored = self._answer_file(request.round)
        if before is not None and stored.exists():
            return self._read_answer(stored)
        later = [number for number in charges if number > request.round]
        if later:
            raise Refusal(f"refused: round {request.round} is over; round {max(later)} was answered")
        return None

    def charge(self, request: TrainRequest, digest: str) -> int:
        """Enter the round in the ledger before it is computed, and return the steps spent, this round included.

        Args:
            request: What is asked.
            digest: Its :func:`request_digest`.

        Raises:
            Refusal: if the plan does not hold it.
        """
        plan = self.site.plan
        with Ledger(self.ledger_file) as ledger:
            spent = ledger.steps_spent(self.hospital)
            if self._charges().get(request.round) == digest:
                return spent
            if spent + request.steps > plan.mechanism.steps:
                raise Refusal(
                    f"refused: round {request.round} asks for {request.steps} steps, but {spent} of the "
                    f"{plan.mechanism.steps} planned ones are spent"
                )
            # Another federation may have spent since this one was agreed to.
            exposure, ceiling = self._exposure(spent + request.steps), self.folder.policy.highest_epsilon
            if not exposure <= ceiling:
                raise Refusal(
                    f"refused: round {request.round} would bring all federations' epsilon to {exposure:g}, above the "
                    f"ceiling of {ceiling:g}"
                )
            ledger.append(
                ChargeEntry(
                    hospital=self.hospital,
                    round=request.round,
                    kind="train",
                    noise_id=digest,
                    steps=request.steps,
                    steps_spent=spent + request.steps,
                    eps_spent=self._epsilon(spent + request.steps),
                    delivered=True,
                )
            )
        return spent + request.steps

    def refuse(self, round: int | None, reason: str) -> None:
        """Enter a refusal in the ledger, as long as there is room: nobody shall fill the hospital's disk by asking."""
        self._make_folder()
        if not self.ledger_file.exists() or self.ledger_file.stat().st_size < _MOST_LEDGER_BYTES:
            with Ledger(self.ledger_file) as ledger:
                ledger.append(
                    RefusalEntry(hospital=self.hospital, round=round, reason=self.folder.without_paths(reason))
                )

    def keep(self, request: TrainRequest, update: ModelUpdate, report: RoundReport) -> None:
        """Store an answer before it leaves, so that it can be given again."""
        file = self._answer_file(request.round)
        save_weights(file, update.delta, facts={"report": dumps(report)})
        settle(file)
        for old in sorted(file.parent.glob("round-*.safetensors"))[:-_ANSWERS_KEPT]:
            old.unlink()

    def received(self) -> tuple[int, Weights] | None:
        """The last model that was received and its round."""
        file = self.path / "received.safetensors"
        return (int(read_facts(file)["round"]), read_weights(file)) if file.exists() else None

    def remember_received(self, request: TrainRequest) -> None:
        """Keep the request's model, to compare the next one with."""
        save_weights(self.path / "received.safetensors", request.weights, facts={"round": str(request.round)})

    def restore(self, state: RecordDict) -> None:
        """Give the app's state back what it had kept when its process was last here; a restart had lost it."""
        file = self.path / "memory.safetensors"
        if not file.exists():
            return
        put_back(state, json.loads(read_facts(file)["records"]), read_parts(file))

    def remember(self, state: RecordDict) -> None:
        """Keep what the app's state holds beyond a round; the secrets of a sum are never written down."""
        records, arrays = kept_records(state), kept_arrays(state)
        if records or arrays:
            save_parts(self.path / "memory.safetensors", arrays, facts={"records": dumps(records)})

    def _make_folder(self) -> None:
        agreements = self.folder.agreements
        if self.path.exists():
            return
        if agreements.exists() and len(list(agreements.iterdir())) >= _MOST_AGREEMENTS:
            raise Refusal(f"refused: the hospital keeps {_MOST_AGREEMENTS} agreements and no more")
        self.path.mkdir(parents=True)
        write_whole(self.path / "charter.json", self.charter.to_json())

    def _reasons(self, records: int, groups: Tensor | None) -> str | None:
        charter, policy, plan = self.charter, self.folder.policy, self.site.plan
        terms = Terms(
            epsilon=self._exposure(plan.mechanism.steps),
            records=records,
            task=charter.task,
            model=title_of(charter.architecture),
            secure_noise=charter.settings.secure_noise and not charter.settings.replayable_batches,
        )
        reasons = [policy.refusal(terms)]
        if plan.num_records != records:
            reasons.append(f"the charter says {plan.num_records} records, and the hospital holds {records}")
        reasons.append(self._wrong_patients(groups))
        if self._other_unit() and not math.isinf(policy.highest_epsilon):
            reasons.append(
                f"its records were in a federation whose budget was not per {plan.unit}, and budgets of records and of "
                "patients do not add up"
            )
        if policy.tamper_check:
            reasons.append(_unfollowable(charter))
        return "; ".join(reason for reason in reasons if reason) or None

    def _wrong_patients(self, groups: Tensor | None) -> str | None:
        """How the charter's patients differ from the hospital's; None where they do not, or are not the unit."""
        planned, most = self.site.plan.patients, self.charter.settings.local.records_per_patient
        if planned is None or most is None:
            return None
        if groups is None:
            return "the charter's budget is per patient, and the hospital's records do not say whose they are"
        own = count_patients(groups, most)
        if own == planned:
            return None
        counts = [f"{found.patients} patients with {found.records_at_once} records a step" for found in (planned, own)]
        return f"the charter says {counts[0]} at most, and the hospital holds {counts[1]}"

    def _exposure(self, steps: int) -> float:
        """What so many steps cost, on top of what the records were exposed to in all other federations.

        A budget of a record promises less of a patient than its number says, and the other way round: removing one of a
        patient's records exchanges the patient's clipped gradient for another one, which moves the sum by up to twice
        the clipping norm. So nothing is promised where both kinds were spent.
        """
        mechanism, settings = self.site.plan.mechanism, self.charter.settings
        if self._other_unit():
            return math.inf
        others = [Segment(plan.noise_multiplier, plan.sample_rate, spent) for plan, spent in self._other_plans()]
        if not others:
            return self._epsilon(steps)
        from hbdp_fed.privacy import history_epsilon  # takes seconds to load

        own = Segment(mechanism.noise_multiplier, mechanism.sample_rate, steps)
        return history_epsilon([own, *others], delta=settings.delta, accountant=self.charter.accountant)

    def _other_unit(self) -> bool:
        """Whether another federation spent a budget of the other unit of privacy."""
        return any(plan.per != self.site.plan.unit for plan, _ in self._other_plans())

    def _other_plans(self) -> Iterator[tuple[PlanEntry, int]]:
        """The plans of other federations, with the steps that were spent of each, at least one."""
        for other in sorted(self.folder.agreements.glob("*/ledger.jsonl")):
            if other.parent == self.path:
                continue
            for account in verify(other).accounts.values():
                if account.plan is not None and account.steps_spent:
                    yield account.plan, account.steps_spent

    def _plan(self) -> PlanEntry:
        plan = self.site.plan
        return PlanEntry.of(
            plan,
            epsilon=self._epsilon(plan.mechanism.steps),
            delta=self.charter.settings.delta,
            accountant=self.charter.accountant,
        )

    def _epsilon(self, steps: int) -> float:
        """What so many steps cost. It is worked out once: a hospital's process is started for every message."""
        file = self.path / "epsilon.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if str(steps) not in known:
            known |= {str(number): epsilon for number, epsilon in self._worked_out(steps).items()}
            write_whole(file, dumps(known))
        return float(known[str(steps)])

    def _worked_out(self, steps: int) -> Mapping[int, float]:
        """By number of steps, what they cost: all that this charter will ask for, where that is quick."""
        from hbdp_fed.privacy import epsilon_schedule  # takes seconds to load

        mechanism, settings = self.site.plan.mechanism, self.charter.settings
        schedule = epsilon_schedule(
            noise_multiplier=mechanism.noise_multiplier,
            sample_rate=mechanism.sample_rate,
            delta=settings.delta,
            accountant=self.charter.accountant,
        )
        rounds = min(settings.rounds, _MOST_WORKED_OUT) if self.charter.accountant == "rdp" else 0
        wanted = {steps, *(number * settings.local_steps for number in range(1, rounds + 1))}
        return {number: float(schedule(number)) for number in sorted(wanted) if number <= mechanism.steps}

    def _charges(self) -> dict[int, str]:
        """By round that was charged, the digest of the request."""
        found: dict[int, str] = {}
        if self.ledger_file.exists():
            for line in self.ledger_file.read_text().splitlines():
                entry: dict[str, Any] = json.loads(line)
                if entry["kind"] == "charge":
                    found[entry["round"]] = entry["noise_id"]
        return found

    def _answer_file(self, number: int) -> Path:
        return self.path / "answers" / f"round-{number:06d}.safetensors"

    def _read_answer(self, file: Path) -> tuple[ModelUpdate, RoundReport]:
        report = RoundReport.from_plain(json.loads(read_facts(file)["report"]))
        return ModelUpdate(self.hospital, report.round, read_weights(file), report.records or 0), report


def _unfollowable(charter: Charter) -> str | None:
    """Why the tamper check could not tell an honest server from another one."""
    if charter.settings.server is not None:
        return "the tamper check cannot follow a server with an optimiser of its own"
    if charter.settings.local.correction != "none":
        return f"the tamper check cannot follow {charter.settings.local.correction}, whose server moves every gradient"
    return None
