"""A malicious federation's apps, for a bundle of their own.

A server that asks for what it must not get, and a hospital's app that would give it everything.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.codec import TrainRequest, parse_failure, request_messages
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec

# Flower looks for them in the text: one assignment each.
server = ServerApp()
hospital = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask, and write down what each question was answered with."""
    charter = Charter.from_json(str(context.run_config["charter"]))
    settings, spec = charter.settings, charter.architecture
    weights = initial_weights(build_model(spec), generator(settings.seed, "initial-weights"))
    honest = TrainRequest(1, settings.local_steps, spec, weights)
    planted = {name: value + torch.ones_like(value) for name, value in weights.items()}
    questions = {
        "a round beyond the plan": replace(honest, round=settings.rounds + 1),
        "more steps": replace(honest, steps=10 * settings.local_steps),
        "an unlisted model": replace(honest, architecture=ModelSpec("mlp", dict(spec.args))),
        "a tampered model": replace(honest, weights=planted),
        "the round as planned": honest,
        "the round again, with other weights": replace(honest, weights=planted),
    }
    told = {}
    for name, question in questions.items():
        messages = list(request_messages(question, grid.get_node_ids()))
        (reply,) = grid.send_and_receive(messages, timeout=120)
        failure = None if reply.has_error() else parse_failure(reply)
        told[name] = reply.error.reason if reply.has_error() else failure[2] if failure else "answered"
    Path(os.environ["HBDP_FEDERATIONS"], "told.json").write_text(json.dumps(told))


@hospital.train()
def train(message: Message, context: Context) -> Message:
    """What the server would like a hospital to run."""
    Path(str(context.node_config["site"]), "taken-over").write_text("the server's code ran here")
    return Message(message.content, reply_to=message)
