"""What a run rehearses, and what people and other programs are told of the number of workers."""

from __future__ import annotations

import pytest

from hbdp_fed.federation.preflight import Need, Sizing
from simulations.compose import compose_run, typed
from simulations.preflight import engine_summary, rehearsal_of, sizing_line
from simulations.prepare import prepare

GIB = 2**30


def test_the_hospital_with_the_largest_batch_is_rehearsed_as_it_will_train() -> None:
    arguments = [
        "clients=3", "data.num_train=90", "data.num_val=40", "data.num_test=40", "model.width=4", "eps=1e6",
        "partition.sizes=power_law", "training.batch_per=federation", "training.expected_batch=30",
        "training.multiplicity=2", "training.max_physical_batch=10", "training.precision=bf16",
    ]  # fmt: skip
    prepared = prepare(typed(compose_run(arguments)))
    step = rehearsal_of(prepared)
    largest = max(prepared.plans, key=lambda plan: plan.num_records)
    assert len({plan.num_records for plan in prepared.plans}) == 3
    assert (step.num_records, step.mechanism) == (largest.num_records, largest.mechanism)
    assert step.image_shape == tuple(prepared.federated.hospitals[0].records.images.shape[1:])
    assert step.label_shape == ()
    assert (step.local.multiplicity, step.local.max_physical_batch, step.local.precision) == (2, 10, "bf16")
    assert step.rehearsed == 5
    assert prepared.engine.workers is None
    assert prepared.engine.at_most == 3
    summary = engine_summary(prepared.engine, Sizing(2, 0.0, Need(GIB), 7 * GIB))
    assert (summary["workers"], summary["hospital_memory"], summary["free_memory"]) == (2, GIB, 7 * GIB)


@pytest.mark.parametrize(
    ("sizing", "line"),
    [
        (Sizing(2, 0.0), None),
        (
            Sizing(2, 0.0, Need(int(0.9 * GIB)), int(21.3 * GIB)),
            "one hospital needs at most 0.9 GiB; 21.3 GiB are free: 2 workers",
        ),
        (
            Sizing(1, 1.0, Need(GIB, 6 * GIB, 8 * GIB), 4 * GIB),
            "one hospital needs at most 1.0 GiB and 6.0 of 8.0 GiB of a GPU; 4.0 GiB are free: 1 worker",
        ),
        (
            Sizing(1, 0.0, Need(9 * GIB), 4 * GIB, fits=False),
            "WARNING: one hospital needs at most 9.0 GiB; 4.0 GiB are free: 1 worker, which may run out of memory; "
            "a smaller training.max_physical_batch needs less",
        ),
    ],
)
def test_one_line_says_how_many_workers_there_are_and_why(sizing: Sizing, line: str | None) -> None:
    assert sizing_line(sizing) == line


def test_a_rehearsal_that_ran_out_of_memory_is_a_warning() -> None:
    line = sizing_line(Sizing(1, 0.0, None, 4 * GIB, fits=False))
    assert line is not None
    assert line.startswith(
        "WARNING: one hospital alone ran out of memory in its rehearsal, where 4.0 GiB are free: 1 w"
    )
