"""What a rehearsal counts with, and how many hospitals then fit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hbdp_fed.federation.crew import Crew, Node
from hbdp_fed.federation.preflight import Need, Rehearsal, fitting, out_of_memory, peak_memory, rehearse
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, PatientCount

GIB = 2**30
A, B = Node("a", 8, 1, 10 * GIB), Node("b", 8, 1, 4 * GIB)

STEP = Rehearsal(
    architecture=ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4}),
    mechanism=DpSgdParams(noise_multiplier=0.1, max_grad_norm=1.0, sample_rate=0.25, steps=10),
    num_records=400,
    image_shape=(1, 12, 12),
    label_shape=(),
    local=LocalSettings(optimizer=OptimizerSettings("nadam", 0.1, 0.9), multiplicity=2, max_physical_batch=16),
    device="cpu",
    threads=1,
)


def test_a_rehearsal_takes_a_full_physical_batch_and_no_more() -> None:
    assert STEP.batch == 100 + 5 * 10  # a mean of 100 and five standard deviations
    assert STEP.rehearsed == 16 // 2
    assert replace(STEP, num_records=4).rehearsed == replace(STEP, num_records=4).batch == 4


def test_a_rehearsal_of_patients_holds_as_many_records_as_they_give_at_most() -> None:
    local = replace(STEP.local, records_per_patient=3)
    patients = replace(STEP, local=local, patients=PatientCount(100, 280))
    # A mean of 25 patients and five standard deviations, with three records each.
    assert patients.batch == (25 + 5 * 5) * 3
    assert patients.rehearsed == 16 // 2
    # A patient's records are differentiated together, however small a physical batch is.
    assert replace(patients, local=replace(local, max_physical_batch=2)).rehearsed == 3
    assert replace(patients, patients=PatientCount(2, 5)).batch == 5
    assert rehearse(patients).memory > 0


def test_what_waits_for_its_turn_is_added_to_the_measured_peak() -> None:
    first = rehearse(STEP)
    assert first.memory >= peak_memory() - 2**24
    before = peak_memory()
    found = rehearse(replace(STEP, num_records=40_000))
    batch = math.ceil(10_000 + 5 * 100)
    # A record and two views of it, in float32.
    assert found.memory - peak_memory() == (batch - 8) * 3 * 4 * 144
    assert peak_memory() - before < 2**26, "only a physical batch was to be differentiated"


def test_the_step_takes_what_its_activations_take() -> None:
    """Against the bytes of one layer's outputs at 16 rows, beyond what this process holds before."""
    with_room = replace(
        STEP,
        architecture=ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 32}),
        image_shape=(1, 128, 128),
    )
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    assert rehearse(with_room).memory - resident > 16 * 32 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("architecture", "label_shape", "loss"),
    [
        (ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4}), (3,), "binary_cross_entropy"),
        (ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8}), (16, 16), "dice_cross_entropy"),
    ],
)
def test_other_tasks_have_other_labels(architecture: ModelSpec, label_shape: tuple[int, ...], loss: str) -> None:
    local = replace(STEP.local, loss=loss)
    step = replace(STEP, architecture=architecture, image_shape=(1, 16, 16), label_shape=label_shape, local=local)
    assert rehearse(step).memory > 0


@pytest.mark.parametrize(
    ("need", "kept", "fits"),
    [
        # Nine tenths of 10 and 4 GiB.
        (Need(3 * GIB), "a a a b", True),
        (Need(GIB), "a a a a b b b", True),
        (Need(5 * GIB), "a", True),
        (Need(11 * GIB), "a", False),
        (None, "a", False),
        # Nine tenths of a GPU of 8 GiB on each of them.
        (Need(GIB, 3 * GIB, 8 * GIB), "a a b b", True),
        (Need(GIB, 9 * GIB, 8 * GIB), "a", False),
    ],
)
def test_each_node_keeps_as_many_as_its_memory_allows_and_one_is_left_in_any_case(need, kept: str, fits: bool) -> None:
    crew = Crew(gpus=0.25, nodes=(A, B, A, B, A, B, A))
    found, sizing = fitting(crew, [A, B], need)
    assert sorted(node.name for node in found) == kept.split()
    assert (sizing.workers, sizing.fits) == (len(kept.split()), fits)
    assert (sizing.gpus_per_client, sizing.need, sizing.free_memory) == (0.25, need, 14 * GIB)


def test_a_step_that_cannot_have_its_memory_is_told_from_one_that_fails() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert out_of_memory(raised.value)
    assert not out_of_memory(RuntimeError("shapes do not match"))
