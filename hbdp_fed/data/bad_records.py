"""What becomes of a record whose files are missing, broken or contradict each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from hbdp_fed.errors import DataFileError, unknown_choice

_LOGGER = logging.getLogger(__name__)

POLICIES = ("stop", "skip")
"""``stop`` ends the run before anything is trained; ``skip`` leaves the record out, counts it and says so."""


@dataclass
class BadRecords:
    """The records of one data set that cannot be used.

    Attributes:
        policy: One of :data:`POLICIES`.
        key: The setting that says so, for messages.
        skipped: A line for each record that was left out, in the order in which they were met.

    Raises:
        SettingError: if there is no such policy.
    """

    policy: str
    key: str = "data.on_bad_record"
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise unknown_choice(self.key, self.policy, POLICIES)

    def refuse(self, path: Path, problem: str) -> None:
        """Leave a record out.

        Args:
            path: The file to look at.
            problem: What is wrong with it, as the end of a sentence that begins with the path.

        Raises:
            DataFileError: under ``stop``.
        """
        if self.policy == "stop":
            raise DataFileError(path, f"{problem}; repair it, or leave such records out with {self.key}=skip")
        _LOGGER.info("skipped %s: %s", path, problem)
        self.skipped.append(f"{path}: {problem}")


def reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an exception, or its type where it says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
