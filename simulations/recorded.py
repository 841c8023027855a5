"""What of a run was recorded, and which attacks find nothing to read in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from hbdp_fed.adversary import ATTACKS, CANDIDATES, recorded_names
from hbdp_fed.adversary.registry import Kind
from hbdp_fed.errors import SettingError
from hbdp_fed.types import ALL_HOSPITALS
from simulations.adversary_plan import ALONE
from simulations.assault import Assault
from simulations.probe import recording_name


def check_recorded(assault: Assault) -> None:
    """Refuse what cannot be attacked because nobody recorded it.

    Raises:
        SettingError: naming what there is.
    """
    names = set(recorded_names(assault.folder.observations))
    for attack in assault.attacks:
        obstacle = _unrecorded(assault, attack, names)
        if obstacle is not None:
            raise SettingError(*obstacle)


def only_recorded(assault: Assault) -> tuple[Assault, tuple[str, ...]]:
    """The same without the attacks that :func:`check_recorded` would refuse, and why each of those is left out."""
    names = set(recorded_names(assault.folder.observations))
    obstacles = {name: _unrecorded(assault, name, names) for name in assault.attacks}
    left_out = tuple(f"{name}: {found[1]}" for name, found in obstacles.items() if found is not None)
    return replace(assault, attacks=tuple(name for name, found in obstacles.items() if found is None)), left_out


def _unrecorded(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    """The setting by which there is nothing for an attack to read, and why; None if there is something."""
    find = _OBSTACLES.get(ATTACKS[attack].kind)
    return None if find is None else find(assault, attack, names)


def _no_game(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    if not assault.prepared.observed:
        return "observed_rounds", f"no training round is left to {attack}: 0 takes all that rounds names"
    games = [assault.observed(surface) for surface in assault.surfaces]
    if not any(games):
        return "surfaces", f"absences and failures leave {attack} no round with the answers that they need"
    for number in sorted({number for found in games for rounds in found.values() for number in rounds}):
        if not _has_updates(assault, number):
            return "attack", f"the updates of round {number}, which {attack} is about, were not recorded"
    return None


def _no_round(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    everybody = tuple(plan.name for plan in assault.prepared.plans)
    seen = [(name,) for name in assault.hospitals()] if set(assault.surfaces) & set(ALONE) else [everybody]
    found = {number for hospitals in seen if (number := assault.early_round(hospitals)) is not None}
    if not found:
        return "rounds", f"absences, failures and rounds leave {attack} no training round to read"
    for number in sorted(found):
        if not _has_updates(assault, number):
            return "attack", f"the updates of round {number}, which {attack} reads, were not recorded"
    return None


def _no_model(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    return (
        None if assault.folder.model_file.is_file() else ("attack", f"{attack} reads the released model; none is there")
    )


def _no_probe(assault: Assault, attack: str, names: set[str]) -> tuple[str, str] | None:
    if not assault.surfaces_of(attack):
        return "surfaces", f"{attack} reads {' and '.join(ATTACKS[attack].surfaces)} alone"
    numbers = assault.probes(attack)
    needed = {
        recording_name(attack, number, hospital)
        for number in numbers
        for hospital in recorded_of(assault, assault.answered(number))
        if hospital in (*assault.hospitals(), ALL_HOSPITALS)
    }
    if needed and needed <= names:
        return None
    if numbers and not needed:
        return "attack", f"{', '.join(assault.hospitals())}: no answer to the probes of {attack}, by absence or failure"
    rounds = numbers or assault.adversary.rounds
    asked = f" in round {', '.join(map(str, rounds))}" if rounds else ""
    sent = [f"{name} ({', '.join(map(str, found))})" for name, found in _recorded_probes(assault, names)]
    return "attack", (
        f"no probe of {attack}{asked} was recorded; probes are planned before training (adversary.attack); "
        f"recorded with rounds: {', '.join(sent) or 'none'}"
    )


_OBSTACLES: Mapping[Kind, Callable[[Assault, str, set[str]], tuple[str, str] | None]] = {
    "probe": _no_probe,
    "round": _no_round,
    "model": _no_model,
    **dict.fromkeys(CANDIDATES, _no_game),
}


def _has_updates(assault: Assault, number: int) -> bool:
    return (assault.folder.observations / f"round-{number:04d}").is_dir()


def recorded_of(assault: Assault, hospitals: Sequence[str]) -> Sequence[str]:
    """Under whose names the answers of these hospitals to a probe were recorded."""
    return (ALL_HOSPITALS,) if assault.secure and hospitals else hospitals


def _recorded_probes(assault: Assault, names: set[str]) -> Iterator[tuple[str, Sequence[int]]]:
    for attack, numbers in assault.prepared.probe_rounds.items():
        there = [n for n in numbers if any(name.startswith(f"{attack}_round-{n:04d}_") for name in names)]
        if there:
            yield attack, there
