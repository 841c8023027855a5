"""A real hospital tries every model on reference images of its own, and answers none that was made to trap records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.data import Records, write_shard
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import TrainRequest, parse_failure
from hbdp_fed.federation.site_folder import SiteFolder
from hbdp_fed.federation.site_screening import TO_THE_SERVER
from hbdp_fed.models import build_model, initial_weights, save_weights, weights_sha256
from hbdp_fed.privacy.ledger import verify
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec, Weights
from tests.federation.conftest import LOCAL_STEPS, SPEC
from tests.federation.deployed.conftest import POLICY, Hospital, Make

Ask = Callable[..., TrainRequest]

SCREENING = replace(POLICY, screening=True, allowed_models=("cnn", "planted"))
FLAGGED = f"the model was tampered with: {TO_THE_SERVER}"


def images(count: int = 16, size: int = 12, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, size, size, generator=generator(seed, "public"))


def put_references(folder: SiteFolder, pictures: Tensor | None = None, labels: Tensor | None = None) -> None:
    pictures = images() if pictures is None else pictures
    labels = torch.arange(len(pictures)) % 2 if labels is None else labels
    write_shard(folder.references_file, Records(images=pictures, labels=labels))


def with_references(hospital: Make, **changes: object) -> Hospital:
    own = hospital(policy=SCREENING, **changes)
    put_references(own.folder)
    return own


def told(hospital: Hospital) -> str:
    """Its own log."""
    return hospital.folder.log_file.read_text()


def spent(hospital: Hospital) -> int:
    """Steps in its ledger."""
    (ledger,) = hospital.folder.agreements.glob("*/ledger.jsonl")
    account = verify(ledger).accounts.get(hospital.name)
    return 0 if account is None else account.steps_spent


@pytest.fixture(scope="module")
def trap() -> tuple[ModelSpec, Weights]:
    base = initial_weights(build_model(SPEC), generator(0, "initial-weights"))
    return craft_model(SPEC, base, images(), ImprintDesign(32, Loudness(100.0)))


def test_honest_rounds_are_answered_as_without_the_check_which_is_calibrated_once(
    hospital: Make, request_of: Ask
) -> None:
    own, plain = with_references(hospital), hospital(under="unscreened")
    assert parse_failure(own.enrolled()) is None
    for number in (1, 2):
        mine, theirs = own.update(request_of(number)), plain.update(request_of(number))
        assert all(torch.equal(mine[name], value) for name, value in theirs.items())
        own = own.restarted()
    assert told(own).count("calibrated its check of models on 16 reference images") == 1


def test_a_trap_that_the_charter_itself_starts_from_is_refused_and_costs_no_step(
    hospital: Make, charter: Charter, trap: tuple[ModelSpec, Weights]
) -> None:
    # Everything that the tamper check compares is as agreed: the architecture and the weights before the first round.
    architecture, weights = trap
    terms = replace(charter, architecture=architecture, initial_sha256=weights_sha256(weights))
    request = TrainRequest(1, LOCAL_STEPS, architecture, weights)
    assert parse_failure(hospital(policy=replace(SCREENING, screening=False), terms=terms).asked(request)) is None
    own = with_references(hospital, terms=terms, under="screening")
    assert parse_failure(own.enrolled()) is None
    assert own.refusal(request) == f"refused: round 1: {FLAGGED}"
    # The server is told no figure and no limit; the hospital's own people are told all.
    assert "planted.weight: the overlap of the rows that two images use is" in told(own)
    assert "at least" in told(own)
    assert spent(own) == 0


def test_other_reference_images_are_another_calibration(hospital: Make, request_of: Ask) -> None:
    own = with_references(hospital)
    own.update(request_of(1))
    (kept,) = own.folder.agreements.glob("*/screening.json")
    before = json.loads(kept.read_text())
    put_references(own.folder, images(seed=2))
    own.restarted().update(request_of(2))
    after = json.loads(kept.read_text())
    assert before["sha256"] != after["sha256"]
    assert before["seed"] != after["seed"]
    assert before["ranges"] != after["ranges"]


def test_a_calibration_that_cannot_be_read_is_made_again(hospital: Make, request_of: Ask) -> None:
    own = with_references(hospital)
    own.update(request_of(1))
    (kept,) = own.folder.agreements.glob("*/screening.json")
    kept.write_text("{}")
    own.restarted().update(request_of(2))
    assert json.loads(kept.read_text())["ranges"]


def test_weights_that_its_people_know_from_elsewhere_pass(
    hospital: Make, request_of: Ask, charter: Charter, start: Weights
) -> None:
    # Like no fresh weights; the head is drawn for this task and is not in the published file.
    published = {name: 300 * value for name, value in start.items() if not name.startswith("head")}
    loud = {**start, **published}
    terms = replace(charter, initial_sha256=weights_sha256(loud))
    own = with_references(hospital, terms=terms)
    assert FLAGGED in own.refusal(request_of(weights=loud))
    save_weights(own.folder.published_weights_file, published)
    assert own.update(request_of(weights=loud))


def test_published_weights_of_another_model_are_named(hospital: Make, request_of: Ask) -> None:
    own = with_references(hospital)
    save_weights(own.folder.published_weights_file, {"elsewhere": torch.ones(3)})
    failure = parse_failure(own.asked(request_of()))
    assert failure is not None
    assert "its own people have to look" in failure[2]
    assert "published.safetensors: holds nothing that fits the model" in told(own)


@pytest.mark.parametrize(
    ("pictures", "labels", "problem"),
    [
        (None, None, "references.safetensors: there is no such file, and the policy says screening: true"),
        (images(7), None, "holds 7 images; a model is screened on at least 8"),
        (images(size=16), None, "one of its images is (1, 16, 16); one of the hospital's records' is (1, 12, 12)"),
        (images(16), torch.zeros(16, 2, dtype=torch.int64), "one of its labels is (2,); one of the hospital's"),
        (images(16), torch.arange(16) % 3, "has labels from 0 to 2; the task has 0 to 1"),
    ],
)
def test_reference_images_that_cannot_be_used_are_named_at_the_roll_call(
    hospital: Make, pictures: Tensor | None, labels: Tensor | None, problem: str
) -> None:
    own = hospital(policy=SCREENING)
    if pictures is not None:
        put_references(own.folder, pictures, labels)
    failure = parse_failure(own.enrolled())
    assert failure is not None
    # No word of it leaves: what a hospital's own files are like is for its own people.
    assert failure[1:] == (
        "exception",
        "the hospital's own files cannot be read; its own people have to look",
    )
    assert problem in told(own)


def test_without_the_policys_word_nothing_is_tried(hospital: Make, request_of: Ask, tmp_path: Path) -> None:
    own = hospital()
    own.update(request_of())
    assert not list(tmp_path.rglob("screening.json"))
