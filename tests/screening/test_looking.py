"""What a hospital reads off a model, beside what autograd says of one image at a time."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch
from torch.nn import functional

from hbdp_fed import screening
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.screening import References, Screen, look_at
from hbdp_fed.screening.looking import unpredicted_labels
from tests.screening.conftest import CNN, Site, fresh, stream


def test_energies_are_those_of_each_images_own_gradient(site: Site) -> None:
    weights = fresh(CNN)
    look = look_at(CNN, weights, site.references, seed=4)
    model = build_model(CNN)
    load_weights(model, weights)
    # Of two classes one is not predicted, whatever the seed is.
    labels = model(site.references.images).argmin(dim=1)
    for place in (0, 11):
        model.zero_grad()
        image = site.references.images[place : place + 1]
        functional.cross_entropy(model(image), labels[place : place + 1]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            expected = parameter.grad.double().flatten(start_dim=1).square().sum(dim=1) if parameter.dim() > 1 else None
            if expected is not None:
                torch.testing.assert_close(look.energies[name][place], expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_labels_are_never_what_the_model_predicts(classes: int) -> None:
    logits = torch.randn(500, classes, generator=stream(1))
    labels = unpredicted_labels(logits, "cross_entropy", stream(2))
    assert not bool((labels == logits.argmax(dim=1)).any())
    assert set(labels.tolist()) == set(range(classes))


def test_labels_of_pixels_and_of_findings_are_unpredicted_too() -> None:
    logits = torch.randn(3, 2, 5, 5, generator=stream(1))
    assert torch.equal(unpredicted_labels(logits, "dice_cross_entropy", stream(2)), logits.argmin(dim=1))
    findings = torch.tensor([[2.0, -1.0, 0.5]])
    assert unpredicted_labels(findings, "binary_cross_entropy", stream(2)).tolist() == [[0, 1, 0]]


def test_look_is_the_same_again(site: Site) -> None:
    first, second = (look_at(CNN, fresh(CNN), site.references, seed=4) for _ in range(2))
    assert all(torch.equal(first.energies[name], second.energies[name]) for name in first.energies)


def test_sure_model_still_has_a_gradient(site: Site) -> None:
    sure = {name: value * 200 if name == "head.weight" else value for name, value in fresh(CNN).items()}
    look = look_at(CNN, sure, site.references, seed=4)
    assert bool((look.energies["head.weight"].sum(dim=1) > 0).all())


def test_reference_images_without_their_labels_are_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="12 reference images have 11 labels"):
        References(site.references.images, site.references.labels[:11])
    with pytest.raises(ValueError, match="at least 2"):
        References(site.references.images[:1], site.references.labels[:1])


def test_nothing_but_reference_images_reaches_the_check() -> None:
    # What a check may look at is written in its signatures: a model, and what it was calibrated with.
    assert list(inspect.signature(Screen.examine).parameters) == ["self", "architecture", "weights"]
    assert {field.name for field in fields(References)} == {"images", "labels", "loss"}
    taken = {
        name for part in (Screen.calibrated, screening.honest_models) for name in inspect.signature(part).parameters
    }
    assert taken == {
        "architecture", "training", "references", "seed", "agreed", "effort", "initial", "generator",
    }  # fmt: skip
