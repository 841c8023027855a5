"""A run as the audit knows it: a federation whose every draw can be taken again."""

from __future__ import annotations

from hbdp_fed.audit import SimulatedTraining
from simulations.prepare import Prepared


def simulated_training(prepared: Prepared) -> SimulatedTraining:
    """The training of a run, whether it has taken place or not."""
    return SimulatedTraining(
        seed=prepared.config.seed,
        architecture=prepared.architecture,
        local=prepared.local,
        rounds=prepared.hyper.rounds,
        local_steps=prepared.hyper.local_steps,
        plans=prepared.plans,
        records=tuple(hospital.records for hospital in prepared.federated.hospitals),
        shares=prepared.shares,
        device=prepared.device,
    )
