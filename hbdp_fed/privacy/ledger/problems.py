"""What is wrong with a ledger, and where."""

from __future__ import annotations

from pathlib import Path


class LedgerError(RuntimeError):
    """A ledger is not what it should be, or an entry does not fit into it.

    Args:
        path: The file.
        line: Which line is wrong, counted from 1; for an entry that does not fit, the one it would have been.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}: line {line}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[LedgerError], tuple[Path, int, str]]:
        """By what it was made of, so that it can be raised in a worker process and caught here."""
        return type(self), (self.path, self.line, self.problem)
