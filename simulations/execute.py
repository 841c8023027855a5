"""Run the federation and write down what happens: checkpoints, reports, validation, what travelled."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hbdp_fed.adversary import save_observation
from hbdp_fed.data.shards import write_shard
from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.federation.codec import RoundReport, TrainRequest
from hbdp_fed.federation.engine import run_federation
from hbdp_fed.federation.server_app import ServerHooks, make_server_app
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import save_weights
from hbdp_fed.privacy import epsilon_schedule
from hbdp_fed.types import ModelUpdate, Weights
from simulations.prepare import Prepared
from simulations.probe import ProbeCampaign
from simulations.run_folder import RunFolder
from simulations.selection import Chosen, RoundSelection
from simulations.terminal import ProgressLine


@dataclass(frozen=True)
class Course:
    """How the federation went.

    Attributes:
        answers: Requests that hospitals answered, probes included.
        startup_s: Seconds until all hospitals had answered the roll-call.
        rounds_s: Seconds of all rounds and probes.
        client_compute_s: Seconds of the hospitals' own work in them, added up.
        clipped_sum: By hospital, the smallest ratio of its noise to the spacing of the numbers that clipped gradients
            were summed in, over all rounds and probes; NaN without noise.
    """

    answers: int
    startup_s: float
    rounds_s: float
    client_compute_s: float
    clipped_sum: Mapping[str, float]


@dataclass
class _Log:
    """The state that the server's hooks share."""

    prepared: Prepared
    folder: RunFolder
    progress: ProgressLine
    campaign: ProbeCampaign | None
    started: float = field(default_factory=time.perf_counter)
    ready: float = 0.0
    answers: int = 0
    compute_s: float = 0.0
    rounds_done: int = 0
    clipped_sum: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.selection = RoundSelection(self.prepared)
        self.mechanisms = {plan.name: plan.mechanism for plan in self.prepared.plans}
        self.spent = {
            plan.name: epsilon_schedule(
                noise_multiplier=plan.mechanism.noise_multiplier,
                sample_rate=plan.mechanism.sample_rate,
                delta=self.prepared.config.delta,
                accountant=self.prepared.accountant,
            )
            for plan in self.prepared.plans
        }

    def on_ready(self) -> None:
        self.ready = time.perf_counter()
        self.progress.say("training")

    def on_reports(self, number: int, reports: Sequence[RoundReport]) -> None:
        self.rounds_done = number
        kind = "probe" if number > self.prepared.hyper.rounds else "train"
        for report in reports:
            self.answers += 1
            self.compute_s += report.seconds
            ratio = report.noise_to_resolution
            self.clipped_sum[report.hospital] = min(self.clipped_sum.get(report.hospital, ratio), ratio)
            eps_spent = self.spent[report.hospital](report.steps_spent)
            self.folder.append_round(
                {
                    "kind": kind,
                    "hospital": report.hospital,
                    "round": number,
                    "status": report.status,
                    "records": report.records,
                    "records_seen": report.records_seen,
                    "loss": report.loss,
                    "metrics": {
                        "clipped_share": report.clipped_share,
                        "noise_to_resolution": report.noise_to_resolution,
                    },
                    "seconds": report.seconds,
                    "bytes": report.bytes,
                    "eps_spent": eps_spent,
                }
            )
            mechanism = self.mechanisms[report.hospital]
            self.folder.append_ledger(
                {
                    "hospital": report.hospital,
                    "round": number,
                    "kind": kind,
                    "noise_multiplier": mechanism.noise_multiplier,
                    "sample_rate": mechanism.sample_rate,
                    "steps": report.steps,
                    "steps_spent": report.steps_spent,
                    "steps_planned": mechanism.steps,
                    "eps_spent": eps_spent,
                }
            )

    def on_failure(self, failure: HospitalFailure) -> None:
        self.folder.append_round(
            {
                "kind": "train" if self.rounds_done < self.prepared.hyper.rounds else "probe",
                "hospital": failure.hospital,
                "round": self.rounds_done + 1,
                "status": "failed",
                "error": failure.details,
            }
        )

    def on_updates(self, number: int, updates: Sequence[ModelUpdate]) -> None:
        self.selection.see_updates(updates)
        if self.prepared.config.federation.record == "all":
            for update in updates:
                self.folder.write_update(update)

    def on_global(self, number: int, weights: Weights) -> None:
        self.folder.write_checkpoint(number, weights, keep=self.prepared.config.federation.checkpoints)
        note = self.selection.see_global(number, weights)
        if number > 0:
            self.progress.advance(f"round {number}: {note}")

    def probes(self, final: Weights) -> Iterable[TrainRequest]:
        # Training is over: whatever happens to the probes, the model is there.
        best = self.selection.best
        if best is not None:
            save_weights(self.folder.model_file, best.weights)
        if self.campaign is None:
            return
        self.progress.say("the malicious server prepares its probes")
        yield from self.campaign.requests(final)

    def on_probe(self, number: int, updates: Sequence[ModelUpdate]) -> None:
        assert self.campaign is not None
        for name, observation in self.campaign.observations(number, updates):
            save_observation(observation, self.folder.observations, name)
        self.progress.advance(f"probe {number - self.prepared.hyper.rounds} answered")


def execute(
    prepared: Prepared, folder: RunFolder, progress: ProgressLine, campaign: ProbeCampaign | None
) -> tuple[Chosen, Course]:
    """Train the federation to the end and, if there is a campaign, let its probes travel.

    The hospitals' records lie in a temporary folder while it runs, each hospital opening only its own file.

    Raises:
        HospitalFailure: if a hospital failed.
    """
    log = _Log(prepared=prepared, folder=folder, progress=progress, campaign=campaign)
    with tempfile.TemporaryDirectory(prefix="hbdp_fed_sites_") as sites:
        settings = _settings(prepared, Path(sites))
        hooks = ServerHooks(
            on_ready=log.on_ready,
            on_updates=log.on_updates,
            on_reports=log.on_reports,
            on_global=log.on_global,
            probes=log.probes,
            on_probe=log.on_probe,
        )
        text, stop = settings.to_json(), threading.Event()
        try:
            run_federation(
                make_server_app(
                    text, architecture=prepared.architecture, initial=prepared.initial, hooks=hooks, stop=stop
                ),
                make_client_app(text),
                num_hospitals=len(prepared.plans),
                engine=prepared.engine,
            )
        except HospitalFailure as failure:
            log.on_failure(failure)
            raise
        finally:
            stop.set()
    chosen = log.selection.chosen()
    ended = time.perf_counter()
    course = Course(
        answers=log.answers,
        startup_s=log.ready - log.started,
        rounds_s=ended - log.ready,
        client_compute_s=log.compute_s,
        clipped_sum=log.clipped_sum,
    )
    return chosen, course


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
    )
