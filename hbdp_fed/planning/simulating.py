"""How long a simulation of the consortium takes on this machine: ``simulations.run`` with the same settings, no attack.

Hospitals are played by a few worker processes, in their order, each by the next free one. Meanwhile the server judges
the last round's model; where workers take all processors, that work is shared with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.planning.calibration import Throughput
from hbdp_fed.planning.consortium import Consortium

STARTS_PER_IMPORT = 1.6
"""An engine's start in units of what the calibration's processes take for theirs: Ray's own, then the workers."""

ENDS_PER_IMPORT = 1.0
"""What reading the data, intervals by bootstrap, figures and the report take, in the same units."""

MESSAGE_S = 0.01
"""What an answer costs besides computing: two messages, their arrays, and the adding up."""

MATRIX = 10
"""Up to so many hospitals, each hospital's own model is judged at the end (a run's ``evaluation.matrix``)."""


@dataclass(frozen=True)
class Simulation:
    """The predicted time of a simulation.

    Attributes:
        seconds: In all, from settings to report.
        startup_s: Until the engine has started.
        rounds_s: All training rounds.
        judging_s: Reading the data, the last validation, the test split, figures and report.
        workers: Processes that play hospitals.
    """

    seconds: float
    startup_s: float
    rounds_s: float
    judging_s: float
    workers: int


def simulation(
    consortium: Consortium, pace: Throughput, *, workers: int, processors: int, import_s: float
) -> Simulation:
    """Predict the time of a simulation.

    Args:
        consortium: A checked one.
        pace: Of one process, measured with as many beside it as there are workers.
        workers: At least 1.
        processors: Of this machine that a run may use, at least 1.
        import_s: What the calibration's processes took to start and import everything.
    """
    training, judging = consortium.training, consortium.judging
    works = [
        MESSAGE_S
        + pace.round_seconds(
            steps=training.local_steps,
            batch=consortium.expected_batch(hospital),
            views=training.multiplicity,
        )
        for hospital in consortium.hospitals
    ]
    judged = judging.validation_records * pace.judged_s
    beside = judged / judging.every
    busy = makespan(works, workers)
    # Nobody works faster for sharing processors: what is judged beside the workers is added where none is left for it.
    a_round = max(busy, beside) if workers < processors else busy + beside / processors
    startup = STARTS_PER_IMPORT * import_s
    models = 1 + (len(works) if len(works) <= MATRIX else 0)
    last = ENDS_PER_IMPORT * import_s + judged + models * judging.test_records * pace.judged_s
    rounds = training.rounds * a_round
    return Simulation(startup + rounds + last, startup, rounds, last, workers)


def makespan(works: Sequence[float], workers: int) -> float:
    """When the last of these works is done, each begun in its order by the first worker that is free."""
    free = [0.0] * workers
    for work in works:
        first = min(range(workers), key=free.__getitem__)
        free[first] += work
    return max(free)
