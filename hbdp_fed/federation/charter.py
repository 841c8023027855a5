"""What a federation of real sites has agreed to: one JSON text that the server and every hospital hold the same."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

from flwr.app import Context
from pydantic import TypeAdapter, ValidationError

from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import Accountant, ModelSpec

CHARTER = "charter"
"""Where Flower's run configuration holds it."""

_LONGEST = 4_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CharterError(ValueError):
    """A charter cannot be read, or is none."""


@dataclass(frozen=True)
class Charter:
    """A federation's terms. Nothing in it says where a site keeps anything.

    Attributes:
        name: What people call it: letters, digits, dot, dash and underscore, at most 64.
        task: What is trained.
        accountant: By which epsilon is meant.
        architecture: The model.
        initial_sha256: Of the float32 weights that training starts from.
        settings: Of the apps. Their hospitals' names are those that the sites go by.
        keep_updates: Whether the server keeps every hospital's update beside the global weights.
    """

    name: str
    task: str
    accountant: Accountant
    architecture: ModelSpec
    initial_sha256: str
    settings: AppSettings
    keep_updates: bool = True

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its text: by this the server and the hospitals know it again after a restart."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Strict JSON."""
        return dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Charter:
        """The inverse of :meth:`to_json`.

        Raises:
            CharterError: if it is none, or is too long.
        """
        if len(text) > _LONGEST:
            raise CharterError(f"the charter has {len(text)} letters; at most {_LONGEST} are read")
        try:
            charter = TypeAdapter(cls).validate_json(text)
        except (ValidationError, ValueError, RecursionError) as error:
            raise CharterError(f"the charter cannot be read: {_first_problem(error)}") from error
        _check(charter)
        return charter


def charter_of(context: Context) -> Charter:
    """The charter of a deployed app's run.

    Raises:
        CharterError: if the run has none.
    """
    text = context.run_config.get(CHARTER)
    if not isinstance(text, str) or not text:
        raise CharterError(
            f"the run has no {CHARTER}: start it with python -m simulations.run engine=superlink, which writes one"
        )
    return Charter.from_json(text)


def _check(charter: Charter) -> None:
    names = charter.settings.hospitals
    for name in (charter.name, *names):
        if _NAME.fullmatch(name) is None:
            raise CharterError(
                f"the name {name[:80]!r} is not of letters, digits, dot, dash and underscore, at most 64"
            )
    if not names or len(set(names)) != len(names):
        raise CharterError("the charter must have hospitals, each once")
    settings = charter.settings
    for key in ("rounds", "local_steps", "threads"):
        if getattr(settings, key) < 1:
            raise CharterError(f"{key} must be at least 1, got {getattr(settings, key)}")
    if not 0 < settings.delta < 1:
        raise CharterError(f"delta must lie strictly between 0 and 1, got {settings.delta}")
    most = settings.local.records_per_patient
    if most is not None and most < 1:
        raise CharterError(f"records_per_patient must be at least 1, got {most}")
    if any((site.plan.patients is None) != (most is None) for site in settings.sites):
        raise CharterError("every plan must be for the unit of privacy, a record or a patient, that training clips")
    if any(site.shard for site in settings.sites):
        raise CharterError("a charter tells no site where its records lie")
    if settings.faults:
        raise CharterError("a charter has no faults: they are for simulations")
    if settings.screening is not None:
        raise CharterError("a charter names no reference images: screening is for simulations")


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return type(error).__name__
