"""A charter, and real hospitals' folders on this disk, which are asked without any network between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Error, Message, MessageType, RecordDict, UserConfig
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run

from hbdp_fed.data.shards import read_shard, write_shard
from hbdp_fed.federation.charter import CHARTER, Charter
from hbdp_fed.federation.codec import TrainRequest, parse_failure, parse_reply, request_messages
from hbdp_fed.federation.hospital import HOSPITAL, SITE, app
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.site_folder import SiteFolder, write_policy
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.privacy.site_policy import MAY_LEAVE, SitePolicy
from hbdp_fed.seeding import generator
from hbdp_fed.types import Weights
from tests.federation.conftest import LOCAL_STEPS, ROUNDS, SPEC

POLICY = SitePolicy(
    highest_epsilon=2e6, lowest_records=5, allowed_tasks=("binary",), allowed_models=("cnn",), may_leave=MAY_LEAVE
)
NODE = 7


@pytest.fixture
def start() -> Weights:
    return initial_weights(build_model(SPEC), generator(0, "initial-weights"))


@pytest.fixture
def charter(settings: AppSettings, start: Weights) -> Charter:
    """Of plans without probes: each round's steps and no more."""
    sites = tuple(
        replace(
            site,
            shard="",
            plan=replace(site.plan, mechanism=replace(site.plan.mechanism, steps=ROUNDS * LOCAL_STEPS)),
        )
        for site in settings.sites
    )
    return Charter("tiny", "binary", "rdp", SPEC, weights_sha256(start), replace(settings, sites=sites))


@dataclass
class Hospital:
    """One hospital with its folder; ``state`` is what its process keeps in memory."""

    name: str
    folder: SiteFolder
    charter: Charter
    state: RecordDict

    def asked(
        self, content: RecordDict | TrainRequest, kind: str = MessageType.TRAIN, *, charter: str | None = None
    ) -> Message:
        """Its reply to a request, or to a message with that content."""
        if isinstance(content, TrainRequest):
            (message,) = request_messages(content, [NODE])
        else:
            message = Message(content, NODE, kind)
        message.metadata.__dict__["_message_id"] = "asked"
        return self.replied(message, charter=charter)

    def replied(self, message: Message, *, charter: str | None = None) -> Message:
        """Its reply to a message as Flower delivers it."""
        context = Context(
            run_id=1,
            node_id=message.metadata.dst_node_id,
            node_config=UserConfig({HOSPITAL: self.name, SITE: str(self.folder.path)}),
            state=self.state,
            run_config=UserConfig({CHARTER: self.charter.to_json() if charter is None else charter}),
        )
        return app(message=message, context=context)

    def enrolled(self) -> Message:
        """Its answer to the roll-call."""
        return self.asked(RecordDict(), MessageType.QUERY)

    def update(self, request: TrainRequest) -> Weights:
        """What it sends for a request that it answers."""
        reply = self.asked(request)
        assert parse_failure(reply) is None, parse_failure(reply)
        return parse_reply(reply)[0].delta

    def refusal(self, asked: TrainRequest | Message) -> str:
        """Why it refuses."""
        told = parse_failure(self.asked(asked) if isinstance(asked, TrainRequest) else asked)
        assert told is not None
        assert told[1] == "refused"
        return told[2]

    def restarted(self) -> Hospital:
        """The same hospital after its process was killed: all that it has is its folder."""
        return replace(self, state=RecordDict())


Make = Callable[..., Hospital]


@pytest.fixture
def hospital(tmp_path: Path, settings: AppSettings, charter: Charter) -> Make:
    def make(
        place: int = 0, *, policy: SitePolicy = POLICY, under: str = "sites", terms: Charter | None = None
    ) -> Hospital:
        site = settings.sites[place]
        folder = SiteFolder(tmp_path / under / site.plan.name)
        if not folder.path.exists():
            folder.path.mkdir(parents=True)
            write_shard(folder.records_file, read_shard(Path(site.shard)))
        write_policy(folder.policy_file, policy)
        return Hospital(site.plan.name, folder, terms or charter, RecordDict())

    return make


@pytest.fixture
def request_of(start: Weights) -> Callable[..., TrainRequest]:
    def make(number: int = 1, *, weights: Weights | None = None, steps: int = LOCAL_STEPS) -> TrainRequest:
        return TrainRequest(number, steps, SPEC, start if weights is None else weights)

    return make


def nudged(weights: Weights, by: float) -> Weights:
    """The weights, each moved by a little in a direction of its own."""
    draw = torch.Generator().manual_seed(5)
    return {name: value + by * torch.randn(value.shape, generator=draw) for name, value in weights.items()}


@dataclass
class FlowerNode:
    """What Flower's server knows of a node."""

    node_id: int
    name: str
    status: str = "online"
    last_activated_at: str = ""


@dataclass
class FlowerStandIn:
    """In place of Flower's own grid: messages are answered by real hospitals' apps when somebody asks for the answers.

    Attributes:
        hospitals: By node.
        offline: Nodes that cannot be reached now.
        between: Called with each message before it is answered; returns another reply, or None for the hospital's own.
    """

    hospitals: dict[int, Hospital]
    offline: set[int] = field(default_factory=set)
    between: Callable[[Message, Hospital], Message | None] = lambda message, hospital: None
    sent: dict[str, Message] = field(default_factory=dict)
    asked: list[tuple[int, str]] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def get_nodes(self) -> list[FlowerNode]:
        return [FlowerNode(node, own.name) for node, own in self.hospitals.items() if node not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(f"m{len(self.sent)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.sent[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for message_id in message_ids:
            message = self.sent.pop(message_id, None)
            if message is None:
                continue
            node = message.metadata.dst_node_id
            self.asked.append((node, message.metadata.group_id))
            own = self.hospitals[node]
            if node in self.offline:
                replies.append(Message(Error(ErrorCode.NODE_UNAVAILABLE, "away"), reply_to=message))
            else:
                replies.append(self.between(message, own) or own.replied(message))
        return replies
