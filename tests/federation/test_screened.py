"""Hospitals that examine what they receive: no answer for a model that was made to trap records, all others trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.data import Records, write_shard
from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.screened import Screening, made_to_trap
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.models import build_model, initial_weights, save_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec, Weights
from tests.federation.conftest import LOCAL_STEPS, PROBES, ROUNDS, SPEC, Runner

HOSPITALS = ["hospital-01", "hospital-02", "hospital-03"]


def public_images() -> torch.Tensor:
    return torch.rand(16, 1, 12, 12, generator=generator(1, "public"))


def imprint(base: Weights) -> tuple[ModelSpec, Weights]:
    return craft_model(SPEC, base, public_images(), ImprintDesign(32, Loudness(100.0)))


def with_screening(settings: AppSettings, folder: Path, *, agreed: ModelSpec = SPEC) -> AppSettings:
    records = Records(images=public_images(), labels=torch.arange(16) % 2)
    write_shard(folder / "references.safetensors", records)
    initial = initial_weights(build_model(agreed), generator(settings.seed, "initial-weights"))
    save_weights(folder / "initial.safetensors", initial)
    files = (str(folder / "references.safetensors"), str(folder / "initial.safetensors"))
    return replace(settings, screening=Screening(*files, architecture=agreed, seed=5))


@pytest.fixture
def screened(settings: AppSettings, tmp_path: Path) -> AppSettings:
    return with_screening(settings, tmp_path)


@pytest.fixture
def base(settings: AppSettings) -> Weights:
    return initial_weights(build_model(SPEC), generator(settings.seed, "initial-weights"))


def malicious_probe(base: Weights) -> TrainRequest:
    architecture, weights = imprint(base)
    return TrainRequest(round=ROUNDS + 1, steps=PROBES, architecture=architecture, weights=weights)


def test_settings_with_screening_survive_their_way_to_the_apps(screened: AppSettings) -> None:
    assert AppSettings.from_json(screened.to_json()) == screened


def test_screened_hospitals_train_as_unscreened_ones_do(
    settings: AppSettings, screened: AppSettings, run: Runner
) -> None:
    plain, checked = run(settings), run(screened)
    assert not checked.failures
    assert all(torch.equal(value, plain.final[name]) for name, value in checked.final.items())


@pytest.mark.parametrize("on_failure", ["abort", "tolerate"])
def test_planted_probe_gets_no_answer_and_ends_no_run(
    on_failure: str, screened: AppSettings, base: Weights, run: Runner
) -> None:
    witness = run(replace(screened, on_failure=on_failure), probes=[malicious_probe(base)])
    assert witness.probed == {}
    assert [len(updates) for updates in witness.updates.values()] == [3, 3]
    assert [failure.hospital for failure in witness.failures] == HOSPITALS
    assert {failure.kind for failure in witness.failures} == {"refused"}
    assert "the model is a planted, not the cnn that was agreed to" in witness.failures[0].details
    assert witness.answered_probes == [ROUNDS + 1]


def test_unscreened_hospitals_answer_the_same_probe(settings: AppSettings, base: Weights, run: Runner) -> None:
    assert len(run(settings, probes=[malicious_probe(base)]).probed[ROUNDS + 1]) == 3


def test_honest_request_outside_training_is_answered(screened: AppSettings, base: Weights, run: Runner) -> None:
    honest = TrainRequest(round=ROUNDS + 1, steps=PROBES, architecture=SPEC, weights=base)
    assert len(run(screened, probes=[honest]).probed[ROUNDS + 1]) == 3


def test_masked_probe_gets_no_sum(ten: AppSettings, tmp_path: Path, base: Weights, run: Runner) -> None:
    witness = run(with_screening(ten, tmp_path), probes=[malicious_probe(base)])
    assert set(witness.sums) == {1, 2}
    assert {failure.kind for failure in witness.failures} == {"refused"}


def test_tampered_training_round_ends_the_run_unless_failures_are_tolerated(
    screened: AppSettings, base: Weights, run: Runner
) -> None:
    loud = {**base, "head.weight": 1e6 * base["head.weight"]}
    with pytest.raises(HospitalFailure, match=r"the model was tampered with: head\.weight: the root mean square"):
        run(screened, start=Standing(0, loud))


def test_refusal_costs_no_step(screened: AppSettings, base: Weights, run: Runner) -> None:
    probes = [malicious_probe(base), TrainRequest(round=ROUNDS + 2, steps=PROBES, architecture=SPEC, weights=base)]
    witness = run(screened, probes=probes)
    # The plan has one step beside training: had the refused probe cost it, the honest one could not be answered.
    assert [report.steps_spent for report in witness.reports[ROUNDS + 2]] == 3 * [ROUNDS * LOCAL_STEPS + PROBES]


def test_planted_weights_in_an_agreed_architecture_are_refused(
    settings: AppSettings, tmp_path: Path, base: Weights
) -> None:
    architecture, weights = imprint(base)
    screening = with_screening(settings, tmp_path, agreed=architecture).screening
    assert screening is not None

    def problem(sent: Weights) -> str | None:
        request = TrainRequest(round=1, steps=LOCAL_STEPS, architecture=architecture, weights=sent)
        plan = settings.sites[0].plan
        return made_to_trap(request, screening, plan, local=settings.local, local_steps=LOCAL_STEPS)

    assert problem(initial_weights(build_model(architecture), generator(3, "fresh"))) is None
    found = problem(weights)
    assert found is not None
    assert "planted.weight: the overlap of the rows that two images use is" in found
