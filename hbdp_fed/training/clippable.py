"""Whether a net that came from elsewhere can be clipped per record: seen once in a process, before anything is trained.

The project's own models are left out, since tests hold them against references. Nobody has tested every net of a
library with every keyword, so a server sees to it before round 1, and a hospital before it takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from hbdp_fed.dpsgd import check_record_gradients, record_loss
from hbdp_fed.errors import SettingError
from hbdp_fed.models import MONAI, build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training.local import LocalSettings
from hbdp_fed.types import ModelSpec

_TRIED = 3
"""Records that a model is tried on: odd, so that nothing which halves the batch goes unseen."""


def check_clippable(
    architecture: ModelSpec, local: LocalSettings, *, task: str, image_shape: Sequence[int], label_shape: Sequence[int]
) -> float | None:
    """Hold the model's clipped sum over three random images against each record's own gradient by plain autograd.

    As :func:`hbdp_fed.dpsgd.check_record_gradients` does, at fresh weights and on the CPU, whatever trains later. No
    record of anybody's is looked at.

    Args:
        architecture: The model.
        local: How it will be trained: its loss and its way of clipping.
        task: What it is asked.
        image_shape: Of one image, (C, *spatial).
        label_shape: Of one label.

    Returns:
        The relative error that was found; None for a model of the project's own, which is not tried.

    Raises:
        SettingError: if a record's gradient is not its own, naming the layer where it can be told.
    """
    if architecture.name != MONAI:
        return None
    return _error_of(
        architecture.to_json(),
        tuple(image_shape),
        tuple(label_shape),
        2 if task == "multilabel" else int(architecture.args["num_classes"]),
        local.loss,
        local.class_weights,
        local.grad_mode,
    )


@lru_cache(maxsize=8)
def _error_of(
    architecture: str,
    image_shape: tuple[int, ...],
    label_shape: tuple[int, ...],
    label_values: int,
    loss: str,
    class_weights: tuple[float, ...] | None,
    grad_mode: str,
) -> float:
    spec, draw = ModelSpec.from_json(architecture), generator(0, "clippable")
    model = build_model(spec)
    try:
        load_weights(model, initial_weights(model, draw))
        return check_record_gradients(
            model,
            torch.rand(_TRIED, *image_shape, generator=draw),
            torch.randint(label_values, (_TRIED, *label_shape), generator=draw),
            loss=record_loss(loss, class_weights),
            grad_mode=grad_mode,
        )
    except (ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise SettingError("model.net", f"{spec.args['net']} cannot be clipped per record: {problem}") from error
