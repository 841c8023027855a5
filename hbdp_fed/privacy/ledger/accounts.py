"""What a ledger's lines add up to, hospital by hospital, and whether a further entry fits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

from hbdp_fed.privacy.ledger.entries import ChargeEntry, Entry, PlanEntry, RefusalEntry
from hbdp_fed.strict_json import dumps

_DIGEST = 8


@dataclass(frozen=True)
class Account:
    """How one hospital stands.

    Attributes:
        plan: Its plan; None for one that only ever refused.
        rounds: How many different rounds and probes it was charged for.
        lost: How many charges were for answers that did not arrive.
        steps_spent: All steps charged.
        eps_spent: What they cost, as its last charge says; 0 without one.
        refusals: How often it refused.
    """

    plan: PlanEntry | None
    rounds: int
    lost: int
    steps_spent: int
    eps_spent: float
    refusals: int


def _digest(value: Any) -> bytes:
    """A few bytes in place of many: enough among the entries of one hospital's one round."""
    return sha256(dumps(value).encode()).digest()[:_DIGEST]


@dataclass(slots=True)
class Running:
    """An account while it grows. About 150 bytes a charge: 1,000 hospitals times hundreds of rounds must fit."""

    plan: PlanEntry | None = None
    lost: int = 0
    steps_spent: int = 0
    eps_spent: float = 0.0
    # By round. Of each charge the digests of its noise and its figures, of each refusal that of its reason.
    charged: dict[int, bytes] = field(default_factory=dict)
    refused: dict[int | None, bytes] = field(default_factory=dict)

    def so_far(self) -> Account:
        """How the hospital stands after what was entered."""
        refusals = sum(map(len, self.refused.values())) // _DIGEST
        return Account(self.plan, len(self.charged), self.lost, self.steps_spent, self.eps_spent, refusals)

    def take(self, entry: Entry) -> bool:
        """Enter ``entry``. False if it was entered before.

        Raises:
            ValueError: telling why it does not fit.
        """
        if isinstance(entry, PlanEntry):
            return self._take_plan(entry)
        if isinstance(entry, ChargeEntry):
            return self._take_charge(entry)
        return self._take_refusal(entry)

    def _take_plan(self, entry: PlanEntry) -> bool:
        if self.plan is None:
            self.plan = entry
            return True
        before = replace(self.plan, unit=self.plan.per)
        after = replace(entry, unit=entry.per)
        differing = [item.name for item in fields(entry) if getattr(before, item.name) != getattr(after, item.name)]
        if differing:
            raise ValueError(f"{entry.hospital} has another plan already: it differs in {', '.join(differing)}")
        return False

    def _take_charge(self, entry: ChargeEntry) -> bool:
        # Whether the answer arrived is no part of what it cost: a lost one may be asked for again and then arrive.
        cost = (entry.kind, entry.steps, entry.steps_spent, entry.eps_spent)
        noise, figures = _digest(entry.noise_id), _digest(cost)
        known = self.charged.get(entry.round, b"")
        for start in range(0, len(known), 2 * _DIGEST):
            if known[start : start + _DIGEST] == noise:
                if known[start + _DIGEST : start + 2 * _DIGEST] != figures:
                    raise ValueError(
                        f"{entry.hospital} was charged for round {entry.round} with noise {entry.noise_id} before, "
                        f"and not with kind, steps, steps_spent, eps_spent = {', '.join(map(str, cost))}"
                    )
                return False
        self._check_steps(entry)
        self.charged[entry.round] = known + noise + figures
        self.steps_spent, self.eps_spent = entry.steps_spent, entry.eps_spent
        self.lost += not entry.delivered
        return True

    def _check_steps(self, entry: ChargeEntry) -> None:
        if self.plan is None:
            raise ValueError(f"{entry.hospital} is charged without a plan")
        if entry.steps_spent != self.steps_spent + entry.steps:
            raise ValueError(
                f"the steps of {entry.hospital} do not add up: {self.steps_spent} before and {entry.steps} now are not "
                f"{entry.steps_spent}"
            )
        if entry.steps_spent > self.plan.steps_planned:
            raise ValueError(
                f"{entry.hospital} spends {entry.steps_spent} steps and has planned {self.plan.steps_planned}"
            )

    def _take_refusal(self, entry: RefusalEntry) -> bool:
        reason, known = _digest(entry.reason), self.refused.get(entry.round, b"")
        if any(known[start : start + _DIGEST] == reason for start in range(0, len(known), _DIGEST)):
            return False
        self.refused[entry.round] = known + reason
        return True
