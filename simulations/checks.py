"""The checks that types cannot make, all before anything is computed or written."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from hbdp_fed.dpsgd import GRAD_MODES, LOSSES
from hbdp_fed.dpsgd.optimizers import OPTIMIZERS
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.federation.aggregation import AGGREGATIONS, WEIGHTINGS, AggregationSettings
from hbdp_fed.federation.aggregation import check as check_aggregation
from hbdp_fed.federation.deployment import SUPERLINK
from hbdp_fed.federation.engine import IN_PROCESS
from hbdp_fed.federation.faults import ANY_PHASE, FAULTS, NEED_PROCESSES, PHASES
from hbdp_fed.models import MODELS
from hbdp_fed.privacy import ACCOUNTANTS
from hbdp_fed.training import AUGMENTATIONS, CORRECTIONS, NO_CORRECTION, PRECISIONS, SCHEDULES, resolve_device
from simulations.adversary_plan import check_adversary
from simulations.data_cache import cache_of
from simulations.limits import check_limits
from simulations.schema import FederationConfig, RunConfig, TrainingConfig
from simulations.screening_words import NONE as NOT_SCREENED
from simulations.screening_words import SCREENING
from simulations.secure import check_secure
from simulations.units import check_unit

NO_OPTIMIZER = "none"
AUTO = "auto"
RECORDED = ("all", "probes")
ON_FAILURE = ("abort", "tolerate")
REPORTS: Mapping[str, tuple[str, ...]] = {"html": ("html",), "md": ("md",), "both": ("html", "md")}
"""By ``report``, the endings of the files that are written."""


def check(config: RunConfig) -> None:
    """Refuse what cannot run.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    _at_least("clients", config.clients, 1)
    _at_least("seed", config.seed, 0)
    if not config.eps > 0:
        raise SettingError("eps", f"must be a positive number or inf (no privacy), got {config.eps:g}")
    if not 0 < config.delta < 1:
        raise SettingError("delta", f"must lie strictly between 0 and 1, got {config.delta:g}")
    resolve_device(config.device)
    _known("report", config.report, REPORTS)
    _at_least("smallest_count", config.smallest_count, 1)
    _known("privacy.accountant", config.privacy.accountant, ACCOUNTANTS)
    check_unit(config)
    _known("model", config.model.name, MODELS)
    cache_of(config.data)
    _check_training(config.training)
    _check_correction(config)
    _known("federation.weighting", config.federation.weighting, WEIGHTINGS)
    _check_server(config.federation)
    _check_answers(config)
    _known("federation.record", config.federation.record, RECORDED)
    _known("federation.screening", config.federation.screening, SCREENING)
    if config.federation.screening != NOT_SCREENED and config.engine.name == SUPERLINK:
        raise SettingError(
            "federation.screening",
            f"must be {NOT_SCREENED} with engine={SUPERLINK}: real hospitals decide by tamper_check and screening in "
            "their own policies",
        )
    _at_least("federation.checkpoints", config.federation.checkpoints, 0)
    _at_least("federation.save_every", config.federation.save_every, 1)
    if not (config.federation.round_timeout_s > 0 and math.isfinite(config.federation.round_timeout_s)):
        raise SettingError("federation.round_timeout_s", "must be a positive number of seconds")
    deadline = config.federation.deadline_s
    if deadline is not None and not (deadline > 0 and math.isfinite(deadline)):
        raise SettingError(
            "federation.deadline_s", f"must be a positive number of simulated seconds or null, got {deadline:g}"
        )
    check_adversary(config.adversary, secure=config.federation.secure_aggregation)
    if config.privacy.steps is not None:
        _at_least("privacy.steps", config.privacy.steps, 1)
    _at_least("evaluation.every", config.evaluation.every, 1)
    _at_least("evaluation.bootstrap", config.evaluation.bootstrap, 0)
    _at_least("evaluation.matrix", config.evaluation.matrix, 0)
    _check_engine(config)
    check_limits(config)


def number_of_hospitals(config: RunConfig) -> int:
    """How many train, of all that records are dealt to.

    Raises:
        SettingError: if ``federation.members`` names one twice, or more than there are.
    """
    members, elsewhere = config.federation.members, config.federation.elsewhere
    if elsewhere:
        if members or config.federation.pooled:
            raise SettingError("federation.elsewhere", "stands alone, without federation.members and federation.pooled")
        if config.engine.name != SUPERLINK:
            raise SettingError(
                "federation.elsewhere", f"is for engine={SUPERLINK}: a simulation has to hold the records itself"
            )
        return len(elsewhere)
    if len(set(members)) < len(members) or len(members) > config.clients:
        raise SettingError(
            "federation.members",
            f"must name each hospital once, and at most clients={config.clients} of them, got {', '.join(members)}",
        )
    return 1 if config.federation.pooled else len(members) or config.clients


def _check_training(training: TrainingConfig) -> None:
    """What needs no data set: rounds, learning rate and their like are checked once recipes have filled them in."""
    for key, known in (
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("augmentation", AUGMENTATIONS),
        ("loss", (AUTO, *LOSSES)),
        ("grad_mode", GRAD_MODES),
        ("precision", PRECISIONS),
        ("correction", CORRECTIONS),
    ):
        _known(f"training.{key}", getattr(training, key), known)
    for key in ("momentum", "warmup", "ema_decay"):
        value = getattr(training, key)
        if not 0 <= value < 1:
            raise SettingError(f"training.{key}", f"must lie in [0, 1), got {value:g}")
    if not 0 < training.final_fraction <= 1:
        raise SettingError("training.final_fraction", f"must lie in (0, 1], got {training.final_fraction:g}")
    if not (training.weight_decay >= 0 and math.isfinite(training.weight_decay)):
        raise SettingError("training.weight_decay", f"must be a number of at least 0, got {training.weight_decay:g}")
    if not (training.proximal >= 0 and math.isfinite(training.proximal)):
        raise SettingError("training.proximal", f"must be a number of at least 0, got {training.proximal:g}")
    _at_least("training.multiplicity", training.multiplicity, 1)
    _at_least("training.max_physical_batch", training.max_physical_batch, 1)
    if PRECISIONS[training.precision].compute is not None and training.grad_mode != "hbdp":
        raise SettingError(
            "training.precision",
            f"{training.precision} needs training.grad_mode=hbdp; {training.grad_mode} takes float32 or float64",
        )


def _check_correction(config: RunConfig) -> None:
    """Control variates are read out of updates that are weighted sums of gradients, and out of their mean."""
    training = config.training
    if training.correction == NO_CORRECTION:
        return
    needed = (
        ("training.optimizer", training.optimizer, "sgd", "its steps add up"),
        ("training.weight_decay", training.weight_decay, 0, "which moves the weights besides gradients"),
        ("training.proximal", training.proximal, 0, "which corrects local steps in another way"),
        ("federation.aggregation", config.federation.aggregation, "mean", "the control variates' mean moves with it"),
    )
    for key, value, wanted, why in needed:
        if value != wanted:
            raise SettingError(
                key, f"must be {wanted} with training.correction={training.correction}: {why}; got {value}"
            )


def _check_server(federation: FederationConfig) -> None:
    _known("federation.server_optimizer", federation.server_optimizer, (NO_OPTIMIZER, *OPTIMIZERS))
    rate = federation.server_learning_rate
    if not (rate > 0 and math.isfinite(rate)):
        raise SettingError("federation.server_learning_rate", f"must be positive and finite, got {rate:g}")
    if not 0 <= federation.server_momentum < 1:
        raise SettingError("federation.server_momentum", f"must lie in [0, 1), got {federation.server_momentum:g}")


def _check_answers(config: RunConfig) -> None:
    """Who has to answer, what is made of the answers, and what goes wrong with them on purpose."""
    federation = config.federation
    _known("federation.on_failure", federation.on_failure, ON_FAILURE)
    if not 0 < federation.participation <= 1:
        raise SettingError("federation.participation", f"must lie in (0, 1], got {federation.participation:g}")
    asked = max(1, round(federation.participation * number_of_hospitals(config)))
    _at_least("federation.min_hospitals", federation.min_hospitals, 1)
    if federation.min_hospitals > asked:
        raise SettingError(
            "federation.min_hospitals",
            f"must be at most the {asked} hospitals that a round asks, got {federation.min_hospitals}",
        )
    _known("federation.aggregation", federation.aggregation, AGGREGATIONS)
    if federation.secure_aggregation:
        check_secure(federation.aggregation, config.training.correction, asked=asked)
    # The rule has to be defined for the fewest answers that a round may count with.
    fewest = asked if federation.on_failure == "abort" else federation.min_hospitals
    check_aggregation(
        AggregationSettings(federation.aggregation, trim=federation.trim, byzantine=federation.byzantine), fewest
    )
    for fault in federation.faults:
        _check_fault(fault, engine=config.engine.name, secure=federation.secure_aggregation)


def _check_fault(fault: object, *, engine: str, secure: bool) -> None:
    wanted = {"hospital": str, "round": int, "kind": str}
    found = {key: type(value) for key, value in fault.items()} if isinstance(fault, dict) else {}
    if not isinstance(fault, dict) or found not in (wanted, {**wanted, "phase": str}):
        raise SettingError("federation.faults", f"must be a list of {{hospital: NAME, round: N, kind: K}}, got {fault}")
    _known("federation.faults", fault["kind"], FAULTS)
    phase = fault.get("phase", "train")
    _known("federation.faults", phase, PHASES)
    if phase != "train" and not secure:
        raise SettingError("federation.faults", f"the phase {phase} needs federation.secure_aggregation=true")
    if phase != "train" and fault["kind"] not in ANY_PHASE:
        raise SettingError("federation.faults", f"in the phase {phase} a kind is one of: {', '.join(ANY_PHASE)}")
    _at_least("federation.faults", fault["round"], 1)
    if fault["kind"] in NEED_PROCESSES and engine == IN_PROCESS:
        raise SettingError("federation.faults", f"{fault['kind']} needs processes of their own: engine=ray")


def _check_engine(config: RunConfig) -> None:
    engine = config.engine
    if engine.workers is not None:
        _at_least("engine.workers", engine.workers, 1)
    _at_least("engine.threads_per_client", engine.threads_per_client, 1)
    if engine.gpus_per_client is not None and not 0 <= engine.gpus_per_client <= 1:
        raise SettingError("engine.gpus_per_client", f"must lie in [0, 1], got {engine.gpus_per_client:g}")


def data_root() -> Path | None:
    """The folder of data sets that are files: the environment variable ``HBDP_DATA``, None where it is not set."""
    value = os.environ.get("HBDP_DATA")
    return Path(value) if value else None


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise SettingError(key, f"must be at least {least}, got {value}")


def _known(key: str, value: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if value not in names:
        raise unknown_choice(key, value, names)
