"""Run the federation and write down what happens: checkpoints, reports, validation, what travelled."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hbdp_fed.adversary import save_observation
from hbdp_fed.data.shards import write_shard
from hbdp_fed.federation.aggregation import AggregationSettings
from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import RoundReport, TrainRequest
from hbdp_fed.federation.deployment import lead
from hbdp_fed.federation.engine import IN_PROCESS, Simulated, run_federation
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.follower import Told
from hbdp_fed.federation.preflight import Sizing
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import ServerHooks, Standing, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import save_weights
from hbdp_fed.privacy.ledger import Ledger
from hbdp_fed.types import ModelUpdate, Weights
from simulations.behind import Behind
from simulations.books import Books, Course
from simulations.deployment import charter_of, deployment_of, is_deployed
from simulations.interrupt import Interrupted, Request, stopping_between_rounds
from simulations.preflight import rehearsal_of, sizing_line
from simulations.prepare import Prepared
from simulations.probe import ProbeCampaign
from simulations.progress import ProgressLine
from simulations.run_folder import RunFolder
from simulations.screening import screening_of
from simulations.selection import Chosen, RoundSelection
from simulations.site_logs import forget_after
from simulations.standing import Snapshot, read_standing, write_standing
from simulations.tally import Tally
from simulations.tracking import EPSILON, NO_TRACKER, Tracker


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
    tracker: Tracker
    done_before: int
    behind: Behind
    unsaved: Snapshot | None = None
    tally: Tally = field(default_factory=Tally)
    ready: float = 0.0

    def on_sized(self, sizing: Sizing) -> None:
        self.course.sizing = sizing
        if (line := sizing_line(sizing)) is not None:
            self.progress.tell(line)

    def on_ready(self) -> None:
        self.ready = time.perf_counter()
        self.progress.start(self.done_before)

    def on_attendance(self, attending: Attendance) -> None:
        self.books.attendance(attending)
        rounds = self.prepared.hyper.rounds
        name = f"round {attending.round}" if attending.round <= rounds else f"probe {attending.round - rounds}"
        self.progress.ask(name, len(attending.present))

    def on_report(self, report: RoundReport) -> None:
        self.books.report(report)
        self.tally.hear(report)
        self.progress.answered()

    def on_failure(self, failure: Failure) -> None:
        self.books.failure(failure)
        self.tally.fail()
        if failure.kind != "duplicate":
            self.progress.answered()
        reason = failure.details.strip().splitlines()[-1]
        self.progress.tell(f"round {failure.round}: {failure.hospital} failed ({failure.kind}): {reason}")

    def on_update(self, update: ModelUpdate) -> None:
        self.selection.see_update(update)
        if self.prepared.config.federation.record == "all":
            self.folder.write_update(update)

    def on_sum(self, revealed: RevealedSum) -> None:
        self.books.revealed(revealed)
        if self.prepared.config.federation.record == "all":
            self.folder.write_update(revealed.update)

    def on_round(self, standing: Standing) -> None:
        number, federation = standing.round, self.prepared.config.federation
        self.folder.write_checkpoint(number, standing.weights, keep=federation.checkpoints)
        figures, updates = self.tally.close(), self.selection.take_updates()
        snapshot = Snapshot.taken(standing, self.simulated, self.course)
        spent = self.books.largest_epsilon()
        stopping = self.stop.made
        is_due = stopping or number % federation.save_every == 0 or number == self.prepared.hyper.rounds

        def judge() -> None:
            note = self.selection.see_global(number, standing.weights, updates)
            if number > 0:
                self.tracker.log_round(number, {**self._judged(number), **figures, EPSILON: spent})
            self.unsaved = snapshot
            if is_due:
                self.save()
            if number > 0:
                self.progress.advance(f"round {number}: {note}")

        self.behind.do(judge)
        if stopping:
            self.behind.wait()
            raise Interrupted(number)

    def save_the_rest(self) -> None:
        """Write down the last round, due or not: whatever ends the run, nothing that was computed is lost."""
        self.behind.wait()
        self.save()

    def save(self) -> None:
        """Write down where the run stands, as far as rounds were judged."""
        if self.unsaved is not None:
            write_standing(self.folder, self.unsaved, self.selection)
            self.unsaved = None

    def _judged(self, number: int) -> Mapping[str, float]:
        judged, found = self.selection.latest
        return {f"validation/{name}": value for name, value in found.items() if judged == number and value is not None}

    def probes(self, final: Weights) -> Iterable[TrainRequest]:
        # Training is over: whatever happens to the probes, the model is there.
        self.behind.wait()
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

    def on_probed_sum(self, revealed: RevealedSum) -> None:
        assert self.campaign is not None
        self.books.revealed(revealed)
        name, observation = self.campaign.observation_of_sum(revealed)
        save_observation(observation, self.folder.observations, name)

    def on_probe(self, number: int) -> None:
        self.progress.advance(f"probe {number - self.prepared.hyper.rounds} answered")

    @property
    def hooks(self) -> ServerHooks:
        report, failure, attendance = self.on_report, self.on_failure, self.on_attendance
        return ServerHooks(
            on_ready=self.on_ready,
            training=Listener(self.on_update, report, failure, attendance, self.on_sum),
            on_round=self.on_round,
            probes=self.probes,
            probing=Listener(self.on_probed, report, failure, attendance, self.on_probed_sum),
            on_probe=self.on_probe,
        )


def execute(
    prepared: Prepared,
    folder: RunFolder,
    progress: ProgressLine,
    campaign: ProbeCampaign | None,
    *,
    begun: float,
    tracker: Tracker = NO_TRACKER,
) -> tuple[Chosen, Course]:
    """Train the federation to the end and, if there is a campaign, let its probes travel.

    Where the folder holds the standing of a run that was interrupted, that run goes on. The hospitals' records lie in
    the cache or, without one, in a temporary folder meanwhile, each hospital opening only its own file.

    Args:
        prepared: The run.
        folder: Where everything is written.
        progress: Tells people what goes on.
        campaign: The malicious server's; None without one.
        begun: When everything was prepared, by ``time.perf_counter``.
        tracker: Gets every training round's figures.

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
        # The hospitals work in other processes, which need not wait until a model is judged.
        Behind(overlap=prepared.engine.name != IN_PROCESS, threads=prepared.engine.threads_per_client) as behind,
    ):
        deployed = is_deployed(prepared.config)
        settings = app_settings(prepared, None if deployed else Path(sites))
        simulated = Simulated([]) if deployed else Simulated.fresh(settings)
        standing, course = _begun(prepared, folder, simulated, selection)
        folder.forget_rounds_after(standing.round)
        forget_after(folder.logs, standing.round)
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
            tracker=tracker,
            done_before=standing.round,
            behind=behind,
        )
        try:
            (_lead_deployed if deployed else _simulate)(prepared, settings, standing, log)
        finally:
            log.save_the_rest()
        course.ledger = {"lines": ledger.head.count, "hash": ledger.head.hash}
    course.startup_s, course.rounds_s = log.ready - begun, time.perf_counter() - log.ready
    return selection.chosen(), course


def _simulate(prepared: Prepared, settings: AppSettings, start: Standing, log: _Log) -> None:
    """Play the server and all hospitals on this machine, or on its cluster."""
    text, simulated = settings.to_json(), log.simulated
    simulated.rehearsal, simulated.on_sized = rehearsal_of(prepared), log.on_sized
    run_federation(
        make_server_app(text, architecture=prepared.architecture, start=start, hooks=log.hooks),
        make_client_app(text),
        simulated=simulated,
        engine=prepared.engine,
    )


def _lead_deployed(prepared: Prepared, settings: AppSettings, start: Standing, log: _Log) -> None:
    """Ask real hospitals, by way of their server."""
    log.on_sized(Sizing(len(settings.sites), 0.0))
    hooks = log.hooks
    lead(
        charter_of(prepared, settings),
        deployment_of(prepared.config.engine),
        Told(hooks.training, hooks.on_ready, hooks.on_round),
        after=start.round or None,
        like=prepared.initial,
        say=log.progress.tell,
    )
    for _ in hooks.probes(start.weights):
        raise AssertionError("real hospitals are sent no probes")


def _begun(
    prepared: Prepared, folder: RunFolder, simulated: Simulated, selection: RoundSelection
) -> tuple[Standing, Course]:
    found = read_standing(folder, simulated, selection, like=prepared.initial)
    return (Standing(0, prepared.initial), Course()) if found is None else found


def _placed(prepared: Prepared, sites: Path | None) -> list[Site]:
    """The hospitals, with their records in files: the cache's, or new ones under ``sites``.

    Where that is None, they are left where real hospitals keep them.
    """
    placed = []
    for plan, hospital, profile in zip(prepared.plans, prepared.federated.hospitals, prepared.profiles, strict=True):
        file = hospital.shard
        if sites is not None and file is None:
            file = sites / plan.name / "records.safetensors"
            file.parent.mkdir()
            write_shard(file, hospital.records)
        shard = "" if sites is None else str(file)
        placed.append(Site(plan=plan, shard=shard, profile=profile))
    return placed


def app_settings(prepared: Prepared, sites: Path | None) -> AppSettings:
    """The settings of a run's apps.

    Args:
        prepared: The run.
        sites: A folder to write the hospitals' records into where no cache holds them; None if real hospitals hold
            their own.
    """
    config, hyper = prepared.config, prepared.hyper
    return AppSettings(
        seed=config.seed,
        delta=config.delta,
        sites=tuple(_placed(prepared, sites)),
        rounds=hyper.rounds,
        local_steps=hyper.local_steps,
        local=prepared.local,
        server=prepared.server,
        weighting=config.federation.weighting,  # type: ignore[arg-type]
        device=config.device,
        threads=prepared.engine.threads_per_client,
        round_timeout_s=config.federation.round_timeout_s,
        secure_noise=config.privacy.secure_noise,
        # The audit has to know whose images an attack should have rebuilt. Real hospitals are not attacked: theirs can
        # be repeated only where their noise can be, to compare with a simulation.
        replayable_batches=sites is not None or not config.privacy.secure_noise,
        participation=config.federation.participation,
        on_failure=config.federation.on_failure,  # type: ignore[arg-type]
        min_hospitals=config.federation.min_hospitals,
        deadline_s=config.federation.deadline_s,
        faults=tuple(Fault(**fault) for fault in config.federation.faults),
        aggregation=AggregationSettings(
            config.federation.aggregation, trim=config.federation.trim, byzantine=config.federation.byzantine
        ),
        secure_aggregation=config.federation.secure_aggregation,
        screening=None if sites is None else screening_of(prepared, sites),
    )
