"""Run the federation and write down what happens: checkpoints, reports, validation, what travelled."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.adversary import save_observation
from hbdp_fed.data.shards import write_shard
from hbdp_fed.federation.aggregation import AggregationSettings
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.engine import Simulated, run_federation
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.preflight import Sizing
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import ServerHooks, Standing, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import save_weights
from hbdp_fed.privacy.ledger import Ledger
from hbdp_fed.types import ModelUpdate, Weights
from simulations.books import Books, Course
from simulations.interrupt import Interrupted, Request, stopping_between_rounds
from simulations.preflight import rehearsal_of, sizing_line
from simulations.prepare import Prepared
from simulations.probe import ProbeCampaign
from simulations.run_folder import RunFolder
from simulations.selection import Chosen, RoundSelection
from simulations.standing import read_standing, write_standing
from simulations.terminal import ProgressLine


@dataclass
class _Log:
    """The state that the server's hooks share."""

    prepared: Prepared
    folder: RunFolder
    progress: ProgressLine
    campaign: ProbeCampaign | None
    books: Books
    course: Course
    selection: RoundSelection
    simulated: Simulated
    stop: Request
    ready: float = 0.0

    def on_sized(self, sizing: Sizing) -> None:
        self.course.sizing = sizing
        if (line := sizing_line(sizing)) is not None:
            self.progress.tell(line)

    def on_ready(self) -> None:
        self.ready = time.perf_counter()
        self.progress.say("training")

    def on_update(self, update: ModelUpdate) -> None:
        self.selection.see_update(update)
        if self.prepared.config.federation.record == "all":
            self.folder.write_update(update)

    def on_round(self, standing: Standing) -> None:
        number = standing.round
        self.folder.write_checkpoint(number, standing.weights, keep=self.prepared.config.federation.checkpoints)
        note = self.selection.see_global(number, standing.weights)
        write_standing(self.folder, standing, self.simulated, self.selection, self.course)
        if number > 0:
            self.progress.advance(f"round {number}: {note}")
        if self.stop.made:
            raise Interrupted(number)

    def probes(self, final: Weights) -> Iterable[TrainRequest]:
        # Training is over: whatever happens to the probes, the model is there.
        best = self.selection.best
        if best is not None:
            save_weights(self.folder.model_file, best.weights)
        if self.campaign is None:
            return
        self.progress.say("the malicious server prepares its probes")
        yield from self.campaign.requests(final)

    def on_probed(self, update: ModelUpdate) -> None:
        assert self.campaign is not None
        name, observation = self.campaign.observation(update)
        save_observation(observation, self.folder.observations, name)

    def on_probe(self, number: int) -> None:
        self.progress.advance(f"probe {number - self.prepared.hyper.rounds} answered")

    @property
    def hooks(self) -> ServerHooks:
        report, failure = self.books.report, self.books.failure
        return ServerHooks(
            on_ready=self.on_ready,
            training=Listener(on_update=self.on_update, on_report=report, on_failure=failure),
            on_round=self.on_round,
            probes=self.probes,
            probing=Listener(on_update=self.on_probed, on_report=report, on_failure=failure),
            on_probe=self.on_probe,
        )


def execute(
    prepared: Prepared, folder: RunFolder, progress: ProgressLine, campaign: ProbeCampaign | None, *, begun: float
) -> tuple[Chosen, Course]:
    """Train the federation to the end and, if there is a campaign, let its probes travel.

    Where the folder holds the standing of a run that was interrupted, that run goes on. The hospitals' records lie in a
    temporary folder meanwhile, each hospital opening only its own file.

    Args:
        prepared: The run.
        folder: Where everything is written.
        progress: Tells people what goes on.
        campaign: The malicious server's; None without one.
        begun: When everything was prepared, by ``time.perf_counter``.

    Raises:
        HospitalFailure: if a hospital failed and ``federation.on_failure`` is ``abort``.
        QuorumLost: if too few hospitals answered.
        Interrupted: after a round, if somebody asked for an end; the folder then holds where the run stands.
    """
    selection = RoundSelection(prepared)
    with (
        tempfile.TemporaryDirectory(prefix="hbdp_fed_sites_") as sites,
        Ledger(folder.ledger_file) as ledger,
        stopping_between_rounds(progress.say) as stop,
    ):
        settings = _settings(prepared, Path(sites))
        simulated = Simulated.fresh(settings)
        standing, course = _begun(prepared, folder, simulated, selection)
        folder.forget_rounds_after(standing.round)
        for _ in range(standing.round):
            progress.advance(f"round {standing.round} was done before")
        books = Books(prepared, folder, ledger, course)
        books.plan()
        log = _Log(
            prepared=prepared,
            folder=folder,
            progress=progress,
            campaign=campaign,
            books=books,
            course=course,
            selection=selection,
            simulated=simulated,
            stop=stop,
        )
        simulated.rehearsal, simulated.on_sized = rehearsal_of(prepared), log.on_sized
        text = settings.to_json()
        run_federation(
            make_server_app(text, architecture=prepared.architecture, start=standing, hooks=log.hooks),
            make_client_app(text),
            simulated=simulated,
            engine=prepared.engine,
        )
        course.ledger = {"lines": ledger.head.count, "hash": ledger.head.hash}
    course.startup_s, course.rounds_s = log.ready - begun, time.perf_counter() - log.ready
    return selection.chosen(), course


def _begun(
    prepared: Prepared, folder: RunFolder, simulated: Simulated, selection: RoundSelection
) -> tuple[Standing, Course]:
    found = read_standing(folder, simulated, selection, like=prepared.initial)
    return (Standing(0, prepared.initial), Course()) if found is None else found


def _settings(prepared: Prepared, sites: Path) -> AppSettings:
    config, hyper = prepared.config, prepared.hyper
    placed = []
    for plan, hospital in zip(prepared.plans, prepared.federated.hospitals, strict=True):
        shard = sites / plan.name / "records.safetensors"
        shard.parent.mkdir()
        write_shard(shard, hospital.records)
        placed.append(Site(plan=plan, shard=str(shard)))
    return AppSettings(
        seed=config.seed,
        delta=config.delta,
        sites=tuple(placed),
        rounds=hyper.rounds,
        local_steps=hyper.local_steps,
        local=prepared.local,
        server=prepared.server,
        weighting=config.federation.weighting,  # type: ignore[arg-type]
        device=config.device,
        threads=prepared.engine.threads_per_client,
        round_timeout_s=config.federation.round_timeout_s,
        secure_noise=config.privacy.secure_noise,
        # The audit has to know whose images an attack should have rebuilt.
        replayable_batches=True,
        participation=config.federation.participation,
        on_failure=config.federation.on_failure,  # type: ignore[arg-type]
        min_hospitals=config.federation.min_hospitals,
        faults=tuple(Fault(**fault) for fault in config.federation.faults),
        aggregation=AggregationSettings(
            config.federation.aggregation, trim=config.federation.trim, byzantine=config.federation.byzantine
        ),
    )
