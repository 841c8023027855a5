"""A run on a real federation: its charter, and where its server is."""

from __future__ import annotations

import math
from pathlib import Path

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.charter import Charter, CharterError
from hbdp_fed.federation.deployment import SUPERLINK, Deployment
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.superlink_client import Connection, project_folder
from hbdp_fed.models import weights_sha256
from simulations.prepare import Prepared
from simulations.schema import EngineConfig, RunConfig
from simulations.typed_path import typed_path


def is_deployed(config: RunConfig) -> bool:
    """Whether real hospitals are asked."""
    return config.engine.name == SUPERLINK


def check_deployment(config: RunConfig) -> None:
    """What a real federation cannot be asked for.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    if not is_deployed(config):
        return
    deployment_of(config.engine)
    project_folder()
    federation = config.federation
    for key, wanted, simulated in (
        ("sites", [], config.sites.kinds),
        ("federation.profiles", {}, federation.profiles),
        ("federation.deadline_s", None, federation.deadline_s),
        ("federation.faults", [], federation.faults),
    ):
        if simulated != wanted:
            raise SettingError(key, "is for simulations; engine=superlink takes hospitals as they are")


def deployment_of(engine: EngineConfig) -> Deployment:
    """Where the server is.

    Raises:
        SettingError: naming the key that is missing or cannot be used.
    """
    certificates, federations = (
        _path(f"engine.{key}", getattr(engine, key)) for key in ("root_certificates", "federations")
    )
    if not certificates.is_file():
        raise SettingError("engine.root_certificates", f"{certificates} is no file")
    host, _, port = engine.address.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingError("engine.address", f"must be host:port of the SuperLink, got {engine.address}")
    if not (engine.patience_s > 0 and math.isfinite(engine.patience_s)):
        raise SettingError("engine.patience_s", "must be a positive number of seconds")
    return Deployment(Connection(engine.address, certificates), federations, engine.patience_s)


def charter_of(prepared: Prepared, settings: AppSettings) -> Charter:
    """What the hospitals are asked to agree to.

    Raises:
        SettingError: if a name in it is none that sites can go by.
    """
    charter = Charter(
        name=prepared.config.name,
        task=prepared.dataset.task,
        accountant=prepared.accountant,
        architecture=prepared.architecture,
        initial_sha256=weights_sha256(prepared.initial),
        settings=settings,
        keep_updates=prepared.config.federation.record == "all",
    )
    try:
        return Charter.from_json(charter.to_json())
    except CharterError as error:
        raise SettingError("name", str(error)) from error


def _path(key: str, value: str | None) -> Path:
    if value is None:
        raise SettingError(key, "must be given for engine=superlink; see hbdp-fed docs deployment")
    return typed_path(key, value).resolve()
