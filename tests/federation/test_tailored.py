"""Requests that hand every hospital weights of its own: each gets its own, and the server never holds them all."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch

from hbdp_fed.federation.codec import TrainRequest, messages_to, parse_request
from hbdp_fed.federation.lengths import longest_answers, longest_updates
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import Weights
from tests.federation.conftest import SPEC, Witness
from tests.federation.test_federation import alone, probe
from tests.federation.test_secure_rounds import flat

ROUND = 3
Runner = Callable[..., Witness]


def own(hospital: str) -> Weights:
    """Weights that no other hospital is handed."""
    return initial_weights(build_model(SPEC), generator(1, "tailored", hospital))


def tailored(number: int = ROUND) -> TrainRequest:
    return replace(probe(number), tailored=own)


def expected(settings: AppSettings) -> Mapping[str, Weights]:
    """What each hospital computes alone of its own weights, in one step."""
    settings = replace(settings, local_steps=1)
    return {site.plan.name: alone(settings, site, own(site.plan.name), ROUND) for site in settings.sites}


def test_every_hospital_trains_the_weights_that_were_made_for_it(settings, run: Runner) -> None:
    # Rounds and steps decide on the learning rate alone, which is constant here.
    sent = {update.hospital: update.delta for update in run(settings, probes=[tailored()]).probed[ROUND]}
    assert list(sent) == list(settings.hospitals)
    for hospital, delta in expected(settings).items():
        assert weights_sha256(sent[hospital]) == weights_sha256(delta)
    # And the final model is that of a run without probes.
    assert weights_sha256(run(settings).final) == weights_sha256(run(settings, probes=[tailored()]).final)


def test_under_secure_aggregation_the_sum_is_that_of_what_each_computed_of_its_own(ten, run: Runner) -> None:
    witness = run(ten, probes=[tailored()])
    shares = ten.shares_of(ten.hospitals)
    by_hand = sum((shares[name] * flat(delta) for name, delta in expected(ten).items()), torch.zeros(()))
    revealed = witness.sums[ROUND]
    assert revealed.hospitals == ten.hospitals
    rounding = 1e-15 * float(by_hand.abs().max())
    assert float((flat(revealed.update.delta) - by_hand).abs().max()) <= revealed.largest_error + rounding
    assert witness.probed == {}


def test_tailored_weights_follow_their_hospital_when_another_is_not_there(settings, run: Runner) -> None:
    """By name, not by the order of those that are asked."""
    first, *others = settings.sites
    absent = replace(first, profile=replace(first.profile, availability=1e-9))
    witness = run(replace(settings, sites=(absent, *others)), probes=[tailored()])
    sent = {update.hospital: update.delta for update in witness.probed[ROUND]}
    assert list(sent) == list(settings.hospitals[1:])
    wanted = expected(settings)
    assert {name: weights_sha256(delta) for name, delta in sent.items()} == {
        name: weights_sha256(wanted[name]) for name in sent
    }


def test_a_hospital_receives_an_ordinary_request_with_nothing_of_the_others() -> None:
    nodes = {"a": 5, "b": 6}
    messages = list(messages_to(tailored(), nodes))
    assert [message.metadata.dst_node_id for message in messages] == [5, 6]
    for hospital, message in zip(nodes, messages, strict=True):
        received = parse_request(message)
        assert received.tailored is None
        assert weights_sha256(received.weights) == weights_sha256(own(hospital))
        assert set(message.content) == {"arrays", "config"}
    plain = list(messages_to(probe(ROUND), nodes))
    assert plain[0].content is plain[1].content


def test_weights_are_made_one_hospital_after_the_other() -> None:
    """When the message is taken, and gone when the next one is."""
    made: list[weakref.ref[torch.Tensor]] = []

    def make(hospital: str) -> Weights:
        gc.collect()
        assert [one for one in made if one() is not None] == []
        weights = {"w": torch.zeros(3)}
        made.append(weakref.ref(weights["w"]))
        return weights

    request = TrainRequest(1, 1, SPEC, {"w": torch.zeros(3)}, tailored=make)
    messages = messages_to(request, {"a": 1, "b": 2, "c": 3})
    assert made == []
    for taken, message in enumerate(messages, start=1):
        assert len(made) == taken
        del message


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_answer_may_be_as_long_as_its_own_weights_let_it(settings, decay: float) -> None:
    local = replace(settings.local, optimizer=replace(settings.local.optimizer, weight_decay=decay))
    plans = [site.plan for site in settings.sites]
    factors = {plan.name: 10.0**place for place, plan in enumerate(plans)}
    asked: list[str] = []

    def make(hospital: str) -> Weights:
        asked.append(hospital)
        return {name: value * factors[hospital] for name, value in probe(ROUND).weights.items()}

    request = replace(probe(ROUND), tailored=make)
    found = longest_answers(plans, local, request)
    for plan in plans:
        [longest] = longest_updates([plan], local, weights=make(plan.name), steps=1).values()
        assert found[plan.name] == longest
    # Where nothing decays the weights do not matter, and none are made for their length.
    assert len(asked) == len(plans) * (1 if decay == 0 else 2)
