"""What a hospital really sends at a huge budget carries the mechanism's noise, whole and of the right size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbdp_fed.data import read_shard
from hbdp_fed.dpsgd import clipped_summer, gaussian_noise, seeded_noise
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.privacy import plan_hospital
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator, noise_stream
from hbdp_fed.training import LocalSettings, Progress, train_locally
from hbdp_fed.types import HospitalPlan, ModelSpec, OptimizerSettings, PrivacyBudget, Weights

EPS, LEARNING_RATE, ROUNDS = 1e12, 0.1, 3
SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
SGD = LocalSettings(optimizer=OptimizerSettings("sgd", LEARNING_RATE, 0.9))


def planned(name: str, records: int, steps: int, eps: float = EPS, batch: float = 8) -> HospitalPlan:
    return plan_hospital(
        name=name,
        num_records=records,
        budget=PrivacyBudget(eps, 1e-5),
        expected_batch=batch,
        steps=steps,
        max_grad_norm=1.0,
    )


def without_noise(settings: AppSettings, site: Site, received: Weights, number: int) -> Weights:
    """The same round of the same hospital with the same batch, clipped but not noised."""
    records = read_shard(Path(site.shard))
    return train_locally(
        architecture=SPEC,
        weights=received,
        images=records.images,
        labels=records.labels,
        mechanism=replace(site.plan.mechanism, noise_multiplier=0.0),
        steps=1,
        settings=settings.local,
        progress=Progress(done=number - 1, planned=ROUNDS),
        noise=seeded_noise(generator(0, "unused")),
        batch_generator=batch_stream(settings.seed, site.plan.name, number),
        augmentation_generator=augmentation_stream(settings.seed, site.plan.name, number),
        device=torch.device("cpu"),
    ).delta


def test_what_is_sent_minus_the_noiseless_delta_is_the_seeded_noise(settings: AppSettings, run) -> None:
    sites = tuple(
        replace(site, plan=planned(site.plan.name, site.plan.num_records, steps=ROUNDS)) for site in settings.sites
    )
    settings = replace(settings, sites=sites, rounds=ROUNDS, local_steps=1, local=SGD)
    witness = run(settings)
    for number in range(1, ROUNDS + 1):
        received = {name: value.float() for name, value in witness.weights[number - 1].items()}
        for site, update in zip(sites, witness.updates[number], strict=True):
            clean = without_noise(settings, site, received, number)
            mechanism = site.plan.mechanism
            noise = gaussian_noise(
                clean,
                std=mechanism.noise_multiplier * mechanism.max_grad_norm,
                source=seeded_noise(noise_stream(settings.seed, site.plan.name, number)),
            )
            for name, value in noise.items():
                expected = -LEARNING_RATE / site.plan.expected_batch * value
                found = update.delta[name] - clean[name]
                # Relative in every element: noise near 0 is compared by its own digits, too.
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("rounds", [400, pytest.param(2400, marks=pytest.mark.slow)])
def test_the_noise_that_is_sent_has_the_planned_variance_in_every_tensor(rounds: int) -> None:
    """Within three standard errors: 5.3% for the smallest tensors and 0.16% for the largest, or 2.2% and 0.06%."""
    spec = ModelSpec("cnn", {"in_channels": 1, "num_classes": 16, "width": 16})
    weights = initial_weights(build_model(spec), generator(0, "weights"))
    images, labels = torch.rand(20, 1, 8, 8, generator=generator(0, "i")), torch.arange(20) % 16
    # Every record in every batch, so that one noiseless round serves to compare all with.
    plan = planned("hospital-01", 20, steps=rounds, batch=20)

    def sent(number: int, sigma: float) -> Weights:
        return train_locally(
            architecture=spec,
            weights=weights,
            images=images,
            labels=labels,
            mechanism=replace(plan.mechanism, noise_multiplier=sigma),
            steps=1,
            settings=SGD,
            progress=Progress(done=number, planned=rounds),
            noise=seeded_noise(noise_stream(1, plan.name, number)),
            batch_generator=batch_stream(1, plan.name, number),
            augmentation_generator=augmentation_stream(1, plan.name, number),
            device=torch.device("cpu"),
        ).delta

    clean = sent(0, 0.0)
    sums = dict.fromkeys(weights, 0.0)
    for number in range(rounds):
        for name, value in sent(number, plan.mechanism.noise_multiplier).items():
            sums[name] += float((value - clean[name]).square().sum())
    std = LEARNING_RATE * plan.mechanism.noise_multiplier * plan.mechanism.max_grad_norm / plan.expected_batch
    for name, total in sums.items():
        drawn = rounds * weights[name].numel()
        # Of n normal numbers' mean square the relative standard error is sqrt(2 / n).
        assert total / drawn == pytest.approx(std**2, rel=3 * (2 / drawn) ** 0.5), name


@pytest.mark.parametrize(("eps", "gaussian"), [(1e9, True), (1e12, True), (1e15, False)])
def test_the_reported_ratio_tells_the_budgets_whose_noise_float32_sums_still_hide(
    settings: AppSettings, run, eps: float, gaussian: bool
) -> None:
    sites = tuple(replace(s, plan=planned(s.plan.name, s.plan.num_records, 2, eps)) for s in settings.sites)
    witness = run(replace(settings, sites=sites, rounds=2, local_steps=1, local=SGD))
    ratios = [report.noise_to_resolution for reports in witness.reports.values() for report in reports]
    assert all((ratio >= 10) == gaussian for ratio in ratios)


def test_at_1e15_the_grid_of_float32_sums_betrays_the_noise_and_float64_does_not() -> None:
    """Why the ratio is reported: with it below 1, rounding the noisy sum to float32 gives back the exact one."""
    plan = planned("hospital-01", 200, steps=1, eps=1e15)
    model = build_model(SPEC)
    load_weights(model, initial_weights(model, generator(0, "weights")))
    # Alike, as scans of one kind are: their gradients add up instead of cancelling.
    images, labels = torch.rand(1, 1, 12, 12, generator=generator(0, "i")).repeat(200, 1, 1, 1), torch.zeros(200).long()
    std = plan.mechanism.noise_multiplier * plan.mechanism.max_grad_norm
    shares = {}
    for dtype in (torch.float32, torch.float64):
        summer = clipped_summer(model.to(dtype), max_grad_norm=1.0, max_physical_batch=256)
        total = summer(images.to(dtype), labels).total
        exact = torch.cat([value.flatten() for value in total.values()])
        noise = gaussian_noise(total, std=std, source=seeded_noise(generator(0, "n")))
        sent = exact + torch.cat([value.flatten() for value in noise.values()])
        spacing = torch.from_numpy(np.spacing(exact.abs().float().numpy())).double()
        large = spacing > 12 * std
        assert int(large.sum()) > 10
        shares[dtype] = float((sent.float().double() == exact)[large].double().mean())
    assert shares[torch.float32] == 1.0
    assert shares[torch.float64] == 0.0
