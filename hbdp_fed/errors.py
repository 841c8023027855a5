"""The errors a person can cause, each with the place to look at in its message."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user gave cannot be used. Shown as one line, without a traceback (exit code 2)."""


class SettingError(UserError):
    """A setting has a value that cannot be used.

    Args:
        key: The full name of the setting, as one types it (``data.scanner_shift``).
        problem: What is wrong and which values are accepted.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, str]]:
        """By what it was made of, so that it can be raised in a worker process and caught here."""
        return type(self), (self.key, self.problem)


class DataFileError(UserError):
    """A data file is missing, unreadable or not what its name says.

    Args:
        path: The file.
        problem: What is wrong with it and what to do.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[DataFileError], tuple[Path, str]]:
        """As for :class:`SettingError`."""
        return type(self), (self.path, self.problem)


class Refusal(Exception):
    """A hospital's no to what a server asks. Its words are for the server, too: they name no file and no record."""


class HospitalFailure(RuntimeError):
    """A hospital's app raised. The run cannot go on (exit code 1).

    Args:
        hospital: The hospital's name.
        details: The traceback as text, as the hospital's process formatted it.
    """

    def __init__(self, hospital: str, details: str) -> None:
        super().__init__(f"{hospital} failed:\n{details.rstrip()}")
        self.hospital = hospital
        self.details = details


class QuorumLost(RuntimeError):
    """Too few hospitals answered for a round to count. The run cannot go on (exit code 1).

    Args:
        round: Which round.
        used: How many answers could be used.
        asked: How many hospitals the round was planned with.
        needed: How many of them have to answer.
        offline: How many of them could not be reached.
        late: How many of them would have answered after the deadline.
        who: Who asks for so many.
    """

    def __init__(
        self,
        *,
        round: int,
        used: int,
        asked: int,
        needed: int,
        offline: int = 0,
        late: int = 0,
        who: str = "federation.min_hospitals",
    ) -> None:
        absent = f" ({offline} offline, {late} late)" if offline or late else ""
        super().__init__(
            f"round {round}: only {used} of the {asked} hospitals that were to take part gave an answer that can be "
            f"used{absent}, and {who} asks for {needed}"
        )
        self.round = round


class TrainingDiverged(RuntimeError):
    """Training left no usable model. The run cannot go on (exit code 1)."""


def unknown_choice(key: str, value: str, known: Iterable[str]) -> SettingError:
    """The error for a name that no registry entry has, listing the names that exist."""
    return SettingError(key, f"'{value}' is not known; choose one of: {', '.join(sorted(known))}")


def shown(text: str) -> str:
    """The text with a replacement character for every control character, which could do something to a terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
