"""Where a run stands after a round, in one file that is written whole or not at all: what it takes to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hbdp_fed.federation.engine import Simulated
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.models import read_facts, read_parts, save_parts
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import Weights
from simulations.books import Course
from simulations.run_folder import RunFolder
from simulations.selection import RoundSelection


@dataclass(frozen=True)
class Snapshot:
    """Where a federation stood after a round, kept while it goes on.

    Attributes:
        standing: The server's part.
        hospitals: Theirs, as plain values.
        arrays: Their arrays.
        course: What was counted.
    """

    standing: Standing
    hospitals: Sequence[Mapping[str, Any]]
    arrays: Weights
    course: Mapping[str, Any]

    @classmethod
    def taken(cls, standing: Standing, simulated: Simulated, course: Course) -> Snapshot:
        """A copy of everything that the next round will change."""
        return cls(standing, simulated.to_plain(), simulated.arrays(), deepcopy(course.to_plain()))


def write_standing(folder: RunFolder, snapshot: Snapshot, selection: RoundSelection) -> None:
    """Write down everything that the next round depends on. Random streams need no state: each is named by its round.

    Args:
        folder: The run's.
        snapshot: The federation after its last round.
        selection: The rounds' models, that round's included.
    """
    chosen, facts = selection.state()
    standing = snapshot.standing
    parts = {
        "global": standing.weights,
        "server": standing.server,
        "control": standing.control,
        "hospitals": snapshot.arrays,
        **chosen,
    }
    plain = {
        "round": standing.round,
        "hospitals": snapshot.hospitals,
        "selection": facts,
        "course": snapshot.course,
    }
    save_parts(folder.standing_file, parts, facts={"standing": dumps(plain)})


def read_standing(
    folder: RunFolder, simulated: Simulated, selection: RoundSelection, *, like: Weights
) -> tuple[Standing, Course] | None:
    """Where the run stood; None if no round of it was ever done. Hospitals and selection are set to that state.

    Args:
        folder: The run's.
        simulated: The hospitals.
        selection: The rounds' models.
        like: The initial weights, in their order: optimisers know parameters by their place.
    """
    if not folder.standing_file.exists():
        return None
    parts = read_parts(folder.standing_file)
    plain = json.loads(read_facts(folder.standing_file)["standing"])
    weights = parts.pop("global")
    standing = Standing(
        round=plain["round"],
        weights={name: weights[name] for name in like},
        server=parts.pop("server", {}),
        control=parts.pop("control", {}),
    )
    simulated.restore(plain["hospitals"], parts.pop("hospitals", {}))
    selection.restore(parts, plain["selection"], handed_out=standing.weights)
    return standing, Course.from_plain(plain["course"])
