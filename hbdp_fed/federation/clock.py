"""The simulated clock: how long a round would take at hospitals with these profiles, and who would be there.

Nothing here is measured and nothing private is looked at: a hospital's time follows from its profile, the size of the
model, and the batch it is *expected* to draw. So the clock says the same on any machine, with any engine, and after a
resume, and its readings cost no budget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from hbdp_fed.federation.profiles import is_online
from hbdp_fed.training.pace import Pace


@dataclass(frozen=True)
class Attendance:
    """Who of those that a round is planned with is there. Everybody is in exactly one of the last three.

    Attributes:
        round: The round's or probe's number.
        parameters: Numbers in the model that travels.
        planned: The hospitals that the round would ask, in their order.
        seconds: By hospital, the simulated time to its answer; of those that are online.
        offline: Those that cannot be reached. They are not asked, compute nothing and spend nothing.
        late: Stragglers: their answers come after the deadline and are not used, though they were computed.
        present: Those whose answers come in time.
    """

    round: int
    parameters: int
    planned: tuple[str, ...]
    seconds: Mapping[str, float]
    offline: tuple[str, ...]
    late: tuple[str, ...]
    present: tuple[str, ...]

    def without(self, unreachable: Collection[str]) -> Attendance:
        """The same with further hospitals offline."""
        gone = {*self.offline, *unreachable}
        return replace(
            self,
            seconds={name: seconds for name, seconds in self.seconds.items() if name not in gone},
            offline=tuple(name for name in self.planned if name in gone),
            late=tuple(name for name in self.late if name not in gone),
            present=tuple(name for name in self.present if name not in gone),
        )


def attendance(
    planned: Sequence[str],
    paces: Mapping[str, Pace],
    *,
    seed: int,
    number: int,
    parameters: int,
    steps: int,
    corrected: bool,
    deadline_s: float | None,
) -> Attendance:
    """Who is there in a round: by the seed alone for outages, by profile and deadline alone for stragglers.

    Args:
        planned: The hospitals that the round would ask, in their order.
        paces: By hospital, of those at least.
        seed: The run's.
        number: The round's or probe's, from 1.
        parameters: Numbers in the model that travels.
        steps: DP-SGD steps of the round.
        corrected: Whether SCAFFOLD's c travels with the model.
        deadline_s: Simulated seconds after which the server goes on without those that are missing; None waits.
    """
    online = [name for name in planned if is_online(paces[name].profile, seed=seed, hospital=name, number=number)]
    seconds = {name: paces[name].seconds(parameters=parameters, steps=steps, corrected=corrected) for name in online}
    late = {name for name in online if deadline_s is not None and seconds[name] > deadline_s}
    return Attendance(
        round=number,
        parameters=parameters,
        planned=tuple(planned),
        seconds=seconds,
        offline=tuple(name for name in planned if name not in seconds),
        late=tuple(name for name in online if name in late),
        present=tuple(name for name in online if name not in late),
    )


def round_seconds(seconds: Mapping[str, float], deadline_s: float | None) -> float:
    """What a round takes: its slowest hospital, or the deadline where somebody is later; 0 where nobody was asked.

    Args:
        seconds: By hospital, of all that were asked.
        deadline_s: As in :func:`attendance`.
    """
    slowest = max(seconds.values(), default=0.0)
    return slowest if deadline_s is None else min(slowest, deadline_s)


def held_up_by(seconds: Mapping[str, float], deadline_s: float | None) -> tuple[str, ...]:
    """For whom a round lasted as long as it did: the slowest hospital, all of them where several are equally slow.

    Where somebody is late, it is everybody who is: without any one of them the round would still have lasted until the
    deadline.
    """
    whole = round_seconds(seconds, deadline_s)
    return tuple(name for name, own in seconds.items() if own >= whole)
