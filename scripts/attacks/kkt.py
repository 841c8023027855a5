"""What the final weights alone give away of the images that a small net was trained on.

    HBDP_DATA=/path/to/data python -m scripts.attacks.kkt --data pneumoniamnist

Trains the project's ``mlp`` by ``train_locally`` on a few records of two classes, all of them in every step, at each
budget, and puts the final weights to ``KktAttack`` and ``ModelInversionAttack``. The net takes the public (validation)
images' mean off every pixel. ``--scale`` multiplies the first layer's initial weights: 1 is He's start, 1e-4 that of
Haim et al. Without noise steps are not clipped.

Prints a row an attack and budget, by ``audit_probe`` and ``attack_figures`` over the records that were trained on: the
share of them with an SSIM of at least 0.4 with their own reconstruction, how many of these also exceed the nearest
public image, and all baselines (the mean and the nearest public image and another patient's). ``controls`` is the last
share for records of the same set that were not trained on. The first line says whose images were trained on:
with ``--tune`` half of the public ones, as an adversary tunes the attack, and the other half is what it knows.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.adversary.final_model import KktAttack, ModelInversionAttack
from hbdp_fed.audit import AttackFigures, Criterion, ProbeOutcome, attack_figures, audit_probe
from hbdp_fed.data import as_floats, load_dataset
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.privacy import calibrate
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, round_progress, train_locally
from hbdp_fed.types import (
    ALL_HOSPITALS,
    Attack,
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Weights,
)

THRESHOLD = 0.4
_JUST_BELOW = 1e-6
DELTA = 1e-3


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        data: A key of ``DATASETS`` with a binary task.
        records: How many are trained on, half of each class.
        hidden: Units of each hidden layer.
        scale: Of the first layer's initial weights, relative to He's.
        steps: Of full-batch descent.
        learning_rate: Of plain SGD.
        max_grad_norm: Where there is noise.
        tune: Whether public images stand for the records.
        seed: Of all draws.
    """

    data: str = "pneumoniamnist"
    records: int = 20
    hidden: tuple[int, ...] = (1000,)
    scale: float = 1.0
    steps: int = 1000
    learning_rate: float = 0.05
    max_grad_norm: float = 1.0
    tune: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """Whose images are trained on, and what is public; images are float32 (n, C, H, W) in [0, 1]."""

    images: Tensor
    labels: Tensor
    controls: Tensor
    public: Tensor


def scene_of(setting: Setting) -> Scene:
    """Records, controls and public images, none of which is in another."""
    root = os.environ.get("HBDP_DATA")
    dataset = load_dataset(setting.data, root=Path(root) if root else None)
    public, records = dataset.val, dataset.train
    stream = generator(setting.seed, "records")
    if setting.tune:
        order = torch.randperm(len(public), generator=stream)
        records, public = public.select(order[: len(order) // 2]), public.select(order[len(order) // 2 :])
    half = setting.records // 2
    rows = [(records.labels == label).nonzero().flatten() for label in (0, 1)]
    rows = [each[torch.randperm(len(each), generator=stream)] for each in rows]
    own, others = torch.cat([each[:half] for each in rows]), torch.cat([each[half : 2 * half] for each in rows])
    return Scene(
        images=as_floats(records.images[own]),
        labels=records.labels[own],
        controls=as_floats(records.images[others]),
        public=as_floats(public.images),
    )


@dataclass(frozen=True)
class Trained:
    """What training left, as an adversary sees it, and how well it fits."""

    observation: Observation
    margin: float
    loss: float


def train(scene: Scene, setting: Setting, eps: float) -> Trained:
    """The net at this budget; the first layer starts at ``setting.scale``."""
    spec = ModelSpec(
        "mlp",
        {
            "in_channels": scene.images.shape[1],
            "num_classes": 2,
            "image_size": list(scene.images.shape[2:]),
            "hidden": list(setting.hidden),
            "centre": scene.public.mean(dim=0).flatten().tolist(),
        },
    )
    start = dict(initial_weights(build_model(spec), generator(setting.seed, "start")))
    start["features.0.weight"] = start["features.0.weight"] * setting.scale
    sigma = calibrate(eps=eps, delta=DELTA, sample_rate=1.0, steps=setting.steps)
    mechanism = DpSgdParams(sigma, setting.max_grad_norm if sigma else math.inf, 1.0, setting.steps)
    optimizer = OptimizerSettings("sgd", setting.learning_rate, momentum=0.0)
    result = train_locally(
        architecture=spec,
        weights=start,
        images=scene.images,
        labels=scene.labels,
        mechanism=mechanism,
        steps=setting.steps,
        settings=LocalSettings(optimizer=optimizer),
        progress=round_progress(1, rounds=1, local_steps=setting.steps),
        noise=seeded_noise(generator(setting.seed, "noise", repr(eps))),
        batch_generator=generator(setting.seed, "batches"),
        augmentation_generator=generator(setting.seed, "augmentation"),
        device=torch.device("cpu"),
    )
    observation = Observation(
        threat_model=replace(REALISTIC, surface="global_model"),
        architecture=spec,
        model_before=start,
        released=ModelUpdate(ALL_HOSPITALS, 1, result.delta, num_records=len(scene.images)),
        public=PublicSideInformation(scene.public, mechanism, optimizer, expected_batch=float(len(scene.images))),
    )
    return Trained(observation, *_fit(spec, start, result.delta, scene))


def _fit(spec: ModelSpec, start: Weights, delta: Weights, scene: Scene) -> tuple[float, float]:
    """The smallest margin and the mean loss of the records."""
    model = build_model(spec).double()
    weights = {name: value.double() + delta[name] for name, value in start.items()}
    logits = torch.func.functional_call(model, weights, (scene.images.double(),)).detach()
    margins = (logits[:, 1] - logits[:, 0]) * (2 * scene.labels - 1)
    return float(margins.min()), float(torch.nn.functional.cross_entropy(logits, scene.labels))


def audited(attack: Attack, trained: Trained, scene: Scene, setting: Setting) -> tuple[ProbeOutcome, AttackFigures]:
    """The attack held against the records that were trained on, by the criterion of ``THRESHOLD``."""
    stream = generator(setting.seed, "adversary", attack.name)
    criterion = Criterion(ssim=THRESHOLD - _JUST_BELOW)
    outcome = audit_probe(
        attack.reconstruct(trained.observation, stream),
        scene.images,
        scene.public,
        hospital=ALL_HOSPITALS,
        round=1,
        controls=scene.controls,
        criterion=criterion,
    )
    return outcome, attack_figures(attack.name, "global_model", [outcome], criterion=criterion)


def shares(outcome: ProbeOutcome) -> dict[str, float]:
    """Shares of the records: with the threshold's SSIM, with that and more than the nearest public image scores."""
    enough = outcome.ssim.nan_to_num(nan=0.0) >= THRESHOLD
    nearer = outcome.ssim.nan_to_num(nan=0.0) > outcome.baselines.nearest
    return {"enough": float(enough.float().mean()), "nearer": float((enough & nearer).float().mean())}


def rows(scene: Scene, setting: Setting, budgets: list[float], attacks: list[Attack]) -> Iterator[list[str]]:
    """A row of the table for each budget and attack."""
    for eps in budgets:
        trained = train(scene, setting, eps)
        for attack in attacks:
            started = time.perf_counter()
            outcome, figures = audited(attack, trained, scene, setting)
            share, baselines = shares(outcome), figures.baselines
            yield [
                f"{eps:g}",
                f"{trained.loss:.2g}",
                f"{trained.margin:.1f}",
                attack.name,
                *(f"{value:.2f}" for value in (share["enough"], share["nearer"], figures.success_rate or 0.0)),
                _text(figures.control_success_rate),
                _text(figures.ssim_mean),
                _text(figures.ssim_max),
                *(_text(baselines[name]) for name in ("mean_image", "nearest_public", "another_patient")),
                _text(figures.settings.get("error"), digits=4),
                f"{time.perf_counter() - started:.0f}",
            ]


HEADINGS = (
    "eps", "loss", "margin", "attack", f"SSIM >= {THRESHOLD}", "and > nearest public", "and > all baselines",
    "controls", "SSIM mean", "max", "mean public", "nearest public", "another patient", "error", "s",
)  # fmt: skip


def _text(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    setting, attack = Setting(), KktAttack()
    parser.add_argument("--data", default=setting.data)
    parser.add_argument("--records", type=int, default=setting.records)
    parser.add_argument("--hidden", type=int, nargs="+", default=list(setting.hidden))
    parser.add_argument("--scale", type=float, default=setting.scale)
    parser.add_argument("--steps", type=int, default=setting.steps)
    parser.add_argument("--learning-rate", type=float, default=setting.learning_rate)
    parser.add_argument("--max-grad-norm", type=float, default=setting.max_grad_norm)
    parser.add_argument("--seed", type=int, default=setting.seed)
    parser.add_argument("--eps", type=float, nargs="+", default=[math.inf])
    parser.add_argument("--tune", action="store_true", help="train on public images, as an adversary can")
    parser.add_argument("--candidates", type=int, default=attack.candidates)
    parser.add_argument("--iterations", type=int, default=attack.iterations)
    parser.add_argument("--restarts", type=int, default=attack.restarts)
    parser.add_argument("--image-rate", type=float, default=attack.image_rate)
    parser.add_argument("--multiplier-rate", type=float, default=attack.multiplier_rate)
    parser.add_argument("--slope", type=float, default=attack.slope)
    parser.add_argument("--spread", type=float, default=attack.spread)
    parser.add_argument("--position", type=float, default=attack.position)
    parser.add_argument("--range-weight", type=float, default=attack.range_weight)
    parser.add_argument("--alike", type=float, default=attack.alike)
    parser.add_argument("--verbose", action="store_true", help="show the searches' progress")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s")
    setting = Setting(
        data=args.data,
        records=args.records,
        hidden=tuple(args.hidden),
        scale=args.scale,
        steps=args.steps,
        learning_rate=args.learning_rate,
        max_grad_norm=args.max_grad_norm,
        tune=args.tune,
        seed=args.seed,
    )
    kkt = KktAttack(
        candidates=args.candidates,
        iterations=args.iterations,
        restarts=args.restarts,
        image_rate=args.image_rate,
        multiplier_rate=args.multiplier_rate,
        slope=args.slope,
        spread=args.spread,
        position=args.position,
        range_weight=args.range_weight,
        alike=args.alike,
    )
    scene = scene_of(setting)
    whose = "public images" if setting.tune else "private records"
    console = Console(width=200, highlight=False)
    console.print(f"{setting.data}: {len(scene.images)} {whose}, mlp {list(setting.hidden)}, scale {setting.scale:g}")
    table = Table(*HEADINGS)
    for row in rows(scene, setting, args.eps, [kkt, ModelInversionAttack()]):
        table.add_row(*row)
        console.print("  ".join(row))
    console.print(table)


if __name__ == "__main__":
    main()
