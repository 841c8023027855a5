"""Checks a ledger's file from its first line to its last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.privacy.ledger.accounts import Account
from hbdp_fed.privacy.ledger.book import Book, read_lines
from hbdp_fed.privacy.ledger.chain import START, Head
from hbdp_fed.privacy.ledger.problems import LedgerError


@dataclass(frozen=True)
class Verified:
    """What an intact ledger says.

    Attributes:
        head: Its end.
        accounts: By hospital, in the order in which they first appear.
        end_checked: Whether the end was compared with a head kept elsewhere. If not, lines may be missing there.
    """

    head: Head
    accounts: Mapping[str, Account]
    end_checked: bool


def verify(path: Path, *, expected_head: Head | None = None) -> Verified:
    """Check a whole ledger: every line, the chain that they make and the accounts that they add up to.

    Args:
        path: The file. It is only read.
        expected_head: Its end, as it was kept elsewhere.

    Raises:
        LedgerError: naming the first line that is wrong, and how.
        OSError: if the file cannot be read.
    """
    book, at_expected = Book(), START
    for _ in read_lines(path, book, may_be_cut_off=False):
        if expected_head is not None and book.head.count == expected_head.count:
            at_expected = book.head.hash
    if expected_head is not None:
        _check_end(path, book.head, expected_head, at_expected)
    accounts = {name: running.so_far() for name, running in book.running.items()}
    return Verified(head=book.head, accounts=accounts, end_checked=expected_head is not None)


def _check_end(path: Path, head: Head, expected: Head, at_expected: str) -> None:
    if head.count < expected.count:
        raise LedgerError(path, head.count + 1, f"is missing: {expected.count} lines are expected, not {head.count}")
    if at_expected != expected.hash:
        raise LedgerError(
            path,
            expected.count,
            f"is not the line that is expected there: its hash is {at_expected}, not {expected.hash}; "
            "the chain was written anew",
        )
    if head.count > expected.count:
        raise LedgerError(path, expected.count + 1, f"was added: only {expected.count} lines are expected")
