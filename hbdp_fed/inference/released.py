"""A released model that can be asked: its architecture with its weights, its task and its operating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbdp_fed.data.contract import Records
from hbdp_fed.errors import DataFileError
from hbdp_fed.models import build_model, load_weights, read_weights, weights_sha256
from hbdp_fed.training.tasks import Point, Task
from hbdp_fed.training.tasks.inference import digest_outputs
from hbdp_fed.types import ModelSpec


@dataclass(frozen=True)
class ReleasedModel:
    """A model and how it is asked.

    Attributes:
        task: What it was trained for.
        class_names: One name a class; ``multilabel``: a finding.
        point: The operating point that validation chose.
        module: The network, on ``device``.
        device: Where it computes.
    """

    task: Task
    class_names: tuple[str, ...]
    point: Point
    module: nn.Module
    device: torch.device

    @classmethod
    def load(
        cls,
        file: Path,
        architecture: ModelSpec,
        *,
        sha256: str,
        task: Task,
        class_names: Sequence[str],
        point: Point,
        device: torch.device,
    ) -> ReleasedModel:
        """Read the weights and put them into their architecture.

        Args:
            file: The safetensors file.
            architecture: What the weights are of.
            sha256: What :func:`hbdp_fed.models.weights_sha256` has to say of them.
            task: What the model was trained for.
            class_names: One name a class.
            point: The operating point.
            device: Where to compute.

        Raises:
            SettingError: if no such architecture is known.
            DataFileError: if the file cannot be read, holds other weights than those, or they do not fit.
        """
        weights = read_weights(file)
        found = weights_sha256(weights)
        if found != sha256:
            raise DataFileError(
                file, f"holds other weights than its card describes: their SHA-256 is {found}, and should be {sha256}"
            )
        module = build_model(architecture)
        try:
            load_weights(module, weights)
        except ValueError as error:
            raise DataFileError(file, f"does not fit its architecture '{architecture.name}': {error}") from error
        return cls(task, tuple(class_names), point, module.to(device).eval(), device)

    def ask(self, images: Tensor) -> NDArray[Any]:
        """What the model says of each image: :attr:`hbdp_fed.training.tasks.Task.answer`, with N as the first axis.

        Args:
            images: float32 (N, C, *spatial) in [0, 1], N at least 1.

        Raises:
            TrainingDiverged: if an output is not finite.
        """

        def digest(logits: Tensor, _: Tensor) -> dict[str, NDArray[Any]]:
            return {"answer": self.task.answer(logits.double()).cpu().numpy()}

        # Nobody knows what is in these images: the labels are there for the form.
        unlabelled = Records(images=images, labels=torch.zeros(len(images), dtype=torch.int64))
        return digest_outputs(self.module, unlabelled, digest, device=self.device)["answer"]

    def decide(self, answer: NDArray[Any]) -> NDArray[np.int64]:
        """What an answer of :meth:`ask` comes to at the operating point."""
        return self.task.decide(answer, self.point)
