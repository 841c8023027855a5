"""The privacy ledger: what every hospital planned, spent and refused, in a file that shows when it was tampered with.

A line is a JSON object. Each one holds the hash of the line before, so that no line can be changed, dropped, inserted
or moved without its successor telling. Whoever rewrites the whole rest of the chain, or drops its end, is found out by
a :class:`Head` that was kept elsewhere.
"""

from hbdp_fed.privacy.ledger.accounts import Account
from hbdp_fed.privacy.ledger.chain import START, TIMES, Head, line_hash
from hbdp_fed.privacy.ledger.entries import ChargeEntry, Entry, PlanEntry, RefusalEntry, RequestKind
from hbdp_fed.privacy.ledger.problems import LedgerError
from hbdp_fed.privacy.ledger.verifying import Verified, verify
from hbdp_fed.privacy.ledger.writing import Ledger

__all__ = [
    "START", "TIMES", "Account", "ChargeEntry", "Entry", "Head", "Ledger", "LedgerError", "PlanEntry", "RefusalEntry",
    "RequestKind", "Verified", "line_hash", "verify",
]  # fmt: skip
