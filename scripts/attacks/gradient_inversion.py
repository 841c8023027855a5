"""Measure how much of a record gradient inversion rebuilds from what one hospital sends in an ordinary round.

    python -m scripts.attacks.gradient_inversion --tv-weights 1e-6
    python -m scripts.attacks.gradient_inversion --tv-weights 1e-6 --records 4
    python -m scripts.attacks.gradient_inversion --tv-weights 1e-6 --model resnet9
    python -m scripts.attacks.gradient_inversion --steps 3 --learning-rate 0.01
    python -m scripts.attacks.gradient_inversion --max-grad-norm 1 --noise-multiplier 1e-3

A single weight of the total variation is taken as it is; of several, a rehearsal chooses, and each of them costs as
much as the attack itself.

Every release is that of a hospital whose training set is just these records, and each step holds them all: the number
of records is known, which is the easiest case there is. Training is the real one (hbdp_fed.training), from fresh
weights. The attack sees the change of the weights and the validation split as public images.

Prints for each record PSNR (dB) and SSIM of the reconstruction that is matched to it, and what the mean public image
scores, then the medians, and how many records came to 30 dB. Exit code 0, or 2 for a setting that cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.adversary.gradient_inversion import GradientInversionAttack
from hbdp_fed.audit.matching import match
from hbdp_fed.audit.similarity import pairwise_ssim, psnr
from hbdp_fed.data import as_floats, load_dataset
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import build_model, fitting_spec, initial_weights
from hbdp_fed.privacy import calibrate
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, Progress, train_locally
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Weights,
)
from simulations.program import OK, exit_code

DELTA = 1e-5
GOOD = 30.0
"""dB from which a reconstruction can hardly be told from the record by eye."""


@dataclass(frozen=True)
class Setting:
    """What is released, and by whom.

    Attributes:
        spec: The honest model.
        weights: Its weights when it was handed out.
        mechanism: The hospital's.
        optimizer: The hospital's.
        public: float32 (P, C, *spatial).
    """

    spec: ModelSpec
    weights: Weights
    mechanism: DpSgdParams
    optimizer: OptimizerSettings
    public: Tensor

    def release(self, images: Tensor, labels: Tensor, *, steps: int, seed: int) -> Observation:
        """What a hospital with just these records sends after so many local steps, as the server sees it."""
        result = train_locally(
            architecture=self.spec,
            weights=self.weights,
            images=images,
            labels=labels,
            mechanism=self.mechanism,
            steps=steps,
            settings=LocalSettings(optimizer=self.optimizer),
            progress=Progress(done=0, planned=steps),
            noise=seeded_noise(generator(seed, "noise")),
            batch_generator=generator(seed, "batches"),
            augmentation_generator=generator(seed, "augmentation"),
            device=torch.device("cpu"),
        )
        return Observation(
            threat_model=REALISTIC,
            architecture=self.spec,
            model_before=self.weights,
            released=ModelUpdate("hospital", 1, result.delta, len(labels)),
            public=PublicSideInformation(
                images=self.public,
                mechanism=self.mechanism,
                optimizer=self.optimizer,
                expected_batch=float(len(labels)),
                later_rates=(self.optimizer.learning_rate,) * (steps - 1),
            ),
        )


@dataclass(frozen=True)
class Scored:
    """One record: how near its reconstruction came, and how near the mean public image is."""

    psnr: float
    ssim: float
    mean_psnr: float
    mean_ssim: float


def scored(found: Tensor, images: Tensor, public: Tensor) -> list[Scored]:
    """Match reconstructions (M, C, *spatial) to the records (n, C, *spatial) and score them, record by record."""
    mean = public.mean(dim=0, keepdim=True).expand_as(images)
    pairs = match(pairwise_ssim(found, images))
    matched = found[pairs.reconstructions]
    of_mean = pairwise_ssim(mean[:1], images)[0]
    own = pairwise_ssim(matched, images).diagonal()
    return [
        Scored(*figures)
        for figures in zip(
            psnr(matched, images).tolist(), own.tolist(), psnr(mean, images).tolist(), of_mean.tolist(), strict=True
        )
    ]


def table(batches: Iterator[tuple[list[Scored], float, float]], *, first: int) -> Iterator[str]:
    """The lines to print, as the batches come in: scores, the attack's own distance, seconds; numbered from first."""
    yield "| batch | PSNR (dB) | SSIM | mean image: PSNR | SSIM | distance | seconds |"
    yield "|---|---|---|---|---|---|---|"
    everyone: list[Scored] = []
    for number, (scores, distance, seconds) in enumerate(batches, start=first):
        everyone += scores
        for one in scores:
            yield (
                f"| {number} | {one.psnr:.2f} | {one.ssim:.3f} | {one.mean_psnr:.2f} | {one.mean_ssim:.3f} "
                f"| {distance:.2g} | {seconds:.0f} |"
            )
    medians = (
        statistics.median(getattr(one, name) for one in everyone) for name in ("psnr", "ssim", "mean_psnr", "mean_ssim")
    )
    yield "| median | {:.2f} | {:.3f} | {:.2f} | {:.3f} | | |".format(*medians)
    good = sum(one.psnr >= GOOD for one in everyone)
    yield f"\n{good} of {len(everyone)} records at {GOOD:g} dB or more"


def setting_of(given: argparse.Namespace, public: Tensor, classes: int) -> Setting:
    """What the arguments ask for."""
    spec = fitting_spec(
        given.model,
        in_channels=public.shape[1],
        num_classes=classes,
        image_size=public.shape[2:],
        settings={"width": given.width},
    )
    sigma = given.noise_multiplier
    if given.eps is not None:
        sigma = calibrate(eps=given.eps, delta=DELTA, sample_rate=1.0, steps=given.steps)
    return Setting(
        spec=spec,
        weights=initial_weights(build_model(spec), generator(given.seed, "model")),
        mechanism=DpSgdParams(sigma, max_grad_norm=given.max_grad_norm, sample_rate=1.0, steps=given.steps),
        optimizer=OptimizerSettings("sgd", given.learning_rate, given.momentum),
        public=public,
    )


def attack_of(given: argparse.Namespace) -> GradientInversionAttack:
    """The attack with what the arguments set, its defaults for the rest."""
    own = (
        "objective",
        "optimizer",
        "iterations",
        "widths",
        "uncorrected",
        "whitening",
        "restarts",
        "start",
        "tv_weights",
        "rehearsals",
        "device",
    )
    chosen = {name: getattr(given, name) for name in own if getattr(given, name) is not None}
    return GradientInversionAttack(**{k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()})


def attacked(given: argparse.Namespace) -> Iterator[tuple[list[Scored], float, float]]:
    """One batch after the other: its records' scores, the attack's own distance, seconds."""
    data = load_dataset(given.data, root=given.root)
    public = as_floats(data.val.images)
    setting, attack = setting_of(given, public, len(data.class_names)), attack_of(given)
    order = torch.randperm(len(data.train.labels), generator=generator(given.seed, "records"))
    for number in range(given.first, given.first + given.batches):
        rows = order[number * given.records : (number + 1) * given.records]
        images, labels = as_floats(data.train.images[rows]), data.train.labels[rows]
        observation = setting.release(images, labels, steps=given.steps, seed=given.seed + number)
        started = time.perf_counter()
        result = attack.reconstruct(observation, generator(given.seed, "attack", number))
        yield scored(result.images, images, public), result.details["objective"], time.perf_counter() - started


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="pneumoniamnist", help="a classification data set of images")
    parser.add_argument("--root", type=Path, default=os.environ.get("HBDP_DATA"), help="its folder; default $HBDP_DATA")
    parser.add_argument("--model", default="cnn", choices=("cnn", "resnet9"))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--records", type=int, default=1, help="of a release")
    parser.add_argument("--batches", type=int, default=8, help="releases to attack")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--steps", type=int, default=1, help="local steps of a release")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--max-grad-norm", type=float, default=math.inf)
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("--noise-multiplier", type=float, default=0.0)
    noise.add_argument("--eps", type=float, help=f"noise for this budget over these steps, at delta {DELTA:g}")
    parser.add_argument("--seed", type=int, default=0)
    attack = parser.add_argument_group("the attack; its own defaults where nothing is given")
    attack.add_argument("--objective")
    attack.add_argument("--optimizer")
    attack.add_argument("--iterations", type=int)
    attack.add_argument("--widths", type=float, nargs="+")
    attack.add_argument("--uncorrected", type=int)
    attack.add_argument("--whitening", type=float)
    attack.add_argument("--restarts", type=int)
    attack.add_argument("--start")
    attack.add_argument("--tv-weights", type=float, nargs="+")
    attack.add_argument("--rehearsals", type=int)
    attack.add_argument("--device")
    parser.add_argument("--verbose", action="store_true", help="tell how the search is doing")
    return parser


def main(given: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(given)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    if options.verbose:
        logging.getLogger("hbdp_fed").setLevel(logging.DEBUG)
    torch.set_num_threads(1)

    def work() -> int:
        for line in table(attacked(options), first=options.first):
            print(line, flush=True)
        return OK

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
