"""Attacks on what an old run recorded: ``python -m simulations.attack run=runs/... attack=imprint``.

Nothing is trained. The run's own settings say who holds what and what was sent; attacks read what it recorded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hbdp_fed.adversary import ATTACKS
from hbdp_fed.errors import SettingError
from hbdp_fed.strict_json import dumps
from simulations.adversary_plan import (
    ALL,
    AUTO,
    NONE,
    asked_for,
    check_adversary,
    check_hospitals,
    check_rounds,
    plan_attacks,
)
from simulations.assault import Assault
from simulations.attacking import Risk, attack_and_audit
from simulations.compose import compose_run, typed, typed_as
from simulations.old_run import composed_of
from simulations.prepare import Prepared, affordable_by, observed_by, prepare
from simulations.program import OK, exit_code, make_console
from simulations.progress import progress
from simulations.recorded import check_recorded, only_recorded
from simulations.run_folder import RunFolder, chosen_folder, create, read_summary, time_stamp
from simulations.schema import AdversaryConfig, AttackConfig
from simulations.terminal import show_risk
from simulations.typed_path import typed_path

HELP = """usage: python -m simulations.attack run=FOLDER [key=value ...]

  python -m simulations.attack run=runs/20260101-120000_run
  python -m simulations.attack run=runs/20260101-120000_run attack=candidate_matching surfaces=[update,aggregate]
  python -m simulations.attack run=runs/20260101-120000_run attack=imprint thresholds=[0.8,0.6] hospitals=[hospital-01]

Attacks what the run recorded, without training. What is not set is as in the run, whose risk it then reproduces.

exit codes: 0 done, 1 an attack failed, 2 a setting cannot be used, 130 interrupted

All settings with their defaults:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        return _help()
    return _attack(typed_as(AttackConfig, _with_run(given)), make_console())


def _help() -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(HELP)
    console.print(OmegaConf.to_yaml(compose_run(["run=FOLDER"], config_name="attack")))
    return OK


def _with_run(given: Sequence[str]) -> DictConfig:
    if not any(argument.startswith("run=") for argument in given):
        raise SettingError("run", "name the folder of a run: run=runs/...")
    return compose_run(given, config_name="attack")


def _attack(settings: AttackConfig, console: Console) -> int:
    source = RunFolder(typed_path("run", settings.run).resolve())
    config = typed(composed_of(source, key="run"))
    with _own_keys():
        adversary = _adversary(config.adversary, settings, secure=config.federation.secure_aggregation)
    console.print(f"reading {config.data.name}", soft_wrap=True)
    prepared = prepare(config)
    with _own_keys():
        check_hospitals(adversary.hospitals, [plan.name for plan in prepared.plans])
        check_rounds(settings.rounds or (), prepared.hyper.rounds + prepared.probes)
        assault = _planned(settings, _attacked_by(prepared, adversary), source, console)
    output = _output(settings.output, source)
    started = time.perf_counter()
    with progress(console, rounds=0) as line:
        risk = attack_and_audit(replace(assault, say=line.say), output)
    spent = time.perf_counter() - started
    written = {
        "settings": _plain(settings),
        "risk": risk.summary,
        "time": {"attack_s": spent, "attacks_s": risk.seconds},
    }
    path = output / "risk.json"
    path.write_text(dumps(written, indent=2) + "\n", encoding="utf-8")
    show_risk(console, json.loads(path.read_text(encoding="utf-8"))["risk"])
    for text in (*risk.left_out, *_compared(risk, source)):
        console.print(text, soft_wrap=True)
    for picture in risk.pictures.values():
        console.print(f"best reconstructions: {picture}", soft_wrap=True)
    console.print(f"risk: {path} ({spent:.0f} s)", soft_wrap=True)
    return OK


def _adversary(own: AdversaryConfig, settings: AttackConfig, *, secure: bool) -> AdversaryConfig:
    """The run's settings with those that were given in their place."""
    names = {item.name for item in fields(AdversaryConfig)} - {"attack"}
    given = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name in names}
    adversary = replace(own, **{name: value for name, value in given.items() if value is not None})
    adversary = replace(adversary, options={**own.options, **adversary.options})
    check_adversary(adversary, secure=secure)
    for name, entry in ATTACKS.items():
        if entry.kind == "probe" and adversary.options.get(name) != own.options.get(name):
            raise SettingError(
                f"adversary.options.{name}", "must be as in the run, in which its model was handed out: leave it out"
            )
    return adversary


def _attacked_by(prepared: Prepared, adversary: AdversaryConfig) -> Prepared:
    """The same run with another adversary. What hospitals had planned stays as it was."""
    changed = replace(prepared, config=replace(prepared.config, adversary=adversary))
    return replace(changed, observed=observed_by(changed))


def _planned(settings: AttackConfig, prepared: Prepared, source: RunFolder, console: Console) -> Assault:
    """What there is to do: attacks by name are refused if they cannot work, of all others those are left that can.

    Those are the run's own, or with ``auto`` and ``all`` every one that applies to what it recorded.
    """
    words = list(prepared.attacks.attacks) if settings.attack is None else asked_for(settings.attack)
    if not words or words == [NONE]:
        raise SettingError("attack", f"none leaves nothing to do; choose {AUTO}, {ALL}, or of: {', '.join(ATTACKS)}")
    config = replace(prepared.config, adversary=replace(prepared.config.adversary, attack=words))
    possible = plan_attacks(
        config,
        prepared.dataset,
        prepared.local,
        steps=prepared.hyper.local_steps,
        hospitals=len(prepared.plans),
    )
    possible = affordable_by(replace(prepared, config=config), possible)
    assault = Assault(prepared, source, possible.attacks, lambda _: None)
    if settings.attack is not None and words not in ([AUTO], [ALL]):
        check_recorded(assault)
        return assault
    assault, missing = only_recorded(assault)
    left_out = (*possible.left_out, *missing)
    if not assault.attacks:
        raise SettingError("attack", f"nothing is left to do; {'; '.join(left_out)}")
    for line in left_out:
        console.print(f"attack left out: {line}", soft_wrap=True)
    return assault


@contextmanager
def _own_keys() -> Iterator[None]:
    """Settings of a run's adversary go by shorter names here."""
    try:
        yield
    except SettingError as error:
        raise SettingError(error.key.removeprefix("adversary."), error.problem) from error


def _output(wanted: str | None, source: RunFolder) -> Path:
    path = chosen_folder(wanted, source.path / "attacks" / time_stamp(), key="output")
    return create(path, key="output").path


def _plain(settings: AttackConfig) -> Mapping[str, Any]:
    return {name: value for name, value in vars(settings).items() if value not in (None, {})}


def _compared(risk: Risk, source: RunFolder) -> Iterable[str]:
    """Whether the run's own summary says the same of each attack."""
    if not source.summary_file.is_file():
        yield "the run has no summary to compare with: it was not finished"
        return
    theirs = read_summary(source.path)["risk"]
    ours = json.loads(dumps(risk.summary))
    for model, entry in ours.items():
        before = {(old["name"], old["surface"]): old for old in theirs[model]["attacks"]}
        for attack in entry["attacks"]:
            key = (attack["name"], attack["surface"])
            if key not in before:
                yield f"{key[0]} ({key[1]}): new, the run's summary has no such entry"
            elif before[key] == attack:
                yield f"{key[0]} ({key[1]}): the same as in the run's summary, to the last digit"
            else:
                differing = [name for name in attack if before[key].get(name) != attack[name]]
                yield f"{key[0]} ({key[1]}): differs from the run's summary in {', '.join(differing)}"


if __name__ == "__main__":
    sys.exit(main())
