"""What a hospital's check of the models it receives says of a run's probes, and of the model that was released.

The check looks at public validation images alone (see :mod:`hbdp_fed.screening`). Hospitals that refuse do so in the
federation (:mod:`hbdp_fed.federation.screened`). Here the same check is told, once a run, of what was handed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hbdp_fed.data import Records, as_floats, write_shard
from hbdp_fed.federation.screened import Screening, training_of
from hbdp_fed.models import save_weights
from hbdp_fed.screening import References, Screen, Verdict
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec, Weights
from simulations.prepare import Prepared
from simulations.probe import ProbeCampaign
from simulations.screening_words import NONE, REFUSE

_IMAGES = 24
"""Reference images: a few dozen show how gradients overlap, and each costs a backward pass a model."""


def screening_of(prepared: Prepared, folder: Path) -> Screening | None:
    """What the hospitals examine models by, written into files of this folder; None if they refuse none."""
    if prepared.config.federation.screening != REFUSE:
        return None
    references, initial = folder / "references.safetensors", folder / "initial.safetensors"
    write_shard(references, references_of(prepared))
    save_weights(initial, prepared.initial)
    return Screening(str(references), str(initial), prepared.architecture, seed=_seed(prepared))


def screening_summary(
    prepared: Prepared, campaign: ProbeCampaign | None, released: Weights
) -> Mapping[str, Any] | None:
    """The ``screening`` entry of a summary; None where nobody asked for it.

    Args:
        prepared: The run.
        campaign: After its probes were sent; None if there were none.
        released: The weights that came out of training, which an honest server handed out.
    """
    mode = prepared.config.federation.screening
    if mode == NONE:
        return None
    agreed = prepared.architecture
    screen = _calibrated(prepared, agreed)
    attacks = []
    for name in campaign.attacks if campaign is not None else ():
        architecture, weights = campaign.handed(name)  # type: ignore[union-attr]
        alone = _calibrated(prepared, architecture).examine(architecture, weights)
        attacks.append(
            {"name": name, **_told(screen.examine(architecture, weights)), "with_layer_agreed": _told(alone)}
        )
    return {
        "mode": mode,
        "images": len(references_of(prepared)),
        "released": _told(screen.examine(agreed, {name: value.float() for name, value in released.items()})),
        "attacks": attacks,
    }


def _calibrated(prepared: Prepared, architecture: ModelSpec) -> Screen:
    """A check by hospitals that agreed to this architecture, calibrated on its own honest models."""
    own = architecture == prepared.architecture
    records = references_of(prepared)
    return Screen.calibrated(
        architecture,
        # Of the least noise: honest models differ least there, and so the ranges are the narrowest.
        training_of(
            min(prepared.plans, key=lambda plan: plan.mechanism.noise_multiplier),
            prepared.local,
            prepared.hyper.local_steps,
        ),
        References(as_floats(records.images), records.labels, prepared.local.loss),
        seed=_seed(prepared),
        agreed=architecture,
        initial=[prepared.initial] if own else [],
    )


def references_of(prepared: Prepared) -> Records:
    """The reference images: a few validation images, never a hospital's."""
    val = prepared.federated.val
    drawn = torch.randperm(len(val), generator=generator(prepared.config.seed, "screening", "images"))
    return val.select(drawn[:_IMAGES])


def _seed(prepared: Prepared) -> int:
    return int(torch.randint(2**62, (), generator=generator(prepared.config.seed, "screening", "labels")))


def _told(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "flagged": verdict.flagged,
        "measures": list(verdict.measures),
        "reasons": list(verdict.reasons),
        "figures": dict(verdict.figures),
    }
