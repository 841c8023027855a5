"""The words of the system as frozen dataclasses. Everything else in the package is written in terms of these."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
"""A model's parameters (or a change of them) by name."""

Surface = Literal["gradient", "update", "aggregate", "global_model"]

Accountant = Literal["rdp", "tight"]
"""By what epsilon is counted: Renyi divergences, or numerical composition with a bound on either side."""

ALL_HOSPITALS = "all hospitals"
"""The name under which the hospitals' weighted mean stands where an adversary sees no single one."""


@dataclass(frozen=True)
class PrivacyBudget:
    """(epsilon, delta) of one unit, a record or a patient, at one hospital for the whole planned training.

    Adjacency: add or remove one record, or one patient with all records. ``epsilon = inf`` is the non-private control.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive (or inf), got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie strictly between 0 and 1, got {self.delta}")

    @property
    def is_private(self) -> bool:
        """Whether training under this budget adds noise at all."""
        return math.isfinite(self.epsilon)


@dataclass(frozen=True)
class DpSgdParams:
    """The mechanism one hospital runs; together with delta it determines epsilon.

    Attributes:
        noise_multiplier: sigma, the noise's standard deviation divided by ``max_grad_norm``; 0 without privacy.
        max_grad_norm: The clipping norm of a unit's gradient (l2 over all parameters); ``inf`` does not clip. A unit
            is a record or a patient with all records.
        sample_rate: q, the probability with which each unit enters a step's Poisson batch, in (0, 1].
        steps: T, all steps over all rounds, a malicious server's probes included.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= 0 or not math.isfinite(self.noise_multiplier):
            raise ValueError(f"noise_multiplier must be finite and not negative, got {self.noise_multiplier}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive (inf does not clip), got {self.max_grad_norm}")
        if self.noise_multiplier > 0 and not math.isfinite(self.max_grad_norm):
            raise ValueError("noise without clipping protects nothing: max_grad_norm must be finite")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"sample_rate must lie in (0, 1], got {self.sample_rate}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True)
class OptimizerSettings:
    """How a hospital turns its noisy gradient into a step.

    Every round starts the optimiser anew, so that a hospital keeps nothing between rounds but its ledger.

    Attributes:
        name: A key of :data:`hbdp_fed.dpsgd.optimizers.OPTIMIZERS`.
        learning_rate: Step size, positive.
        momentum: In [0, 1); the first moment's decay (beta1) of ``nadam`` and ``adamw``.
        weight_decay: At least 0. ``sgd`` adds that times the weights to the gradient; ``nadam`` and ``adamw`` shrink
            the weights by learning rate times that before the step (Loshchilov and Hutter 2017, arXiv 1711.05101).
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0


Unit = Literal["record", "patient"]
"""Whom the guarantee is for: what is added or removed, drawn into steps and clipped as a whole."""

UNITS: tuple[Unit, ...] = ("record", "patient")


@dataclass(frozen=True)
class PatientCount:
    """A hospital's patients, where each of them with all records is the unit of privacy.

    Attributes:
        patients: P, how many there are, at least 1.
        records_at_once: How many records a step would hold that draws all of them: each patient's, but no more than
            ``records_per_patient`` of one.
    """

    patients: int
    records_at_once: int

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= self.records_at_once:
            raise ValueError(f"{self.patients} patients cannot give {self.records_at_once} records")


@dataclass(frozen=True)
class HospitalPlan:
    """What one hospital has agreed to before training: its records, its mechanism, the epsilon that follows.

    Attributes:
        name: The hospital.
        num_records: Its records, whatever the unit of privacy is.
        mechanism: What it runs; the sample rate and the clipping norm are a unit's.
        eps_rdp: The epsilon of a unit, by Renyi differential privacy.
        patients: Its patients, where they are the units; None where each record is one.
    """

    name: str
    num_records: int
    mechanism: DpSgdParams
    eps_rdp: float
    patients: PatientCount | None = None

    @property
    def unit(self) -> Unit:
        """What the budget is for."""
        return "record" if self.patients is None else "patient"

    @property
    def num_units(self) -> int:
        """How many units it has."""
        return self.num_records if self.patients is None else self.patients.patients

    @property
    def expected_batch(self) -> float:
        """q times the number of units: what a step's clipped sum is divided by."""
        return self.mechanism.sample_rate * self.num_units

    @property
    def expected_records(self) -> float:
        """How many records a step holds on average, which is what it costs to compute."""
        records = self.num_records if self.patients is None else self.patients.records_at_once
        return self.mechanism.sample_rate * records


@dataclass(frozen=True)
class ModelSpec:
    """A model's architecture: a name of the model registry and that builder's keyword arguments (plain JSON values)."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The specification as a JSON object with the keys ``name`` and ``args``."""
        return json.dumps({"name": self.name, "args": dict(self.args)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The inverse of :meth:`to_json`."""
        value = json.loads(text)
        return cls(name=value["name"], args=value["args"])


@dataclass(frozen=True)
class ModelUpdate:
    """What one hospital sent in one round: local weights minus the global weights it had received (float64)."""

    hospital: str
    round: int
    delta: Weights
    num_records: int


UpdateTap = Callable[[ModelUpdate], None]
"""Called with exactly the updates that travelled, one after the other, in the hospitals' fixed order."""


@dataclass(frozen=True)
class ThreatModel:
    """An adversary's capabilities.

    Attributes:
        name: ``worst_case``, ``relaxed`` or ``realistic``.
        knows_candidates: Holds a candidate set that contains the original record.
        perfect_algorithm: Only the noise is in the way of its reconstruction algorithm.
        malicious_server: Chooses the model, and so the architecture, that hospitals receive.
        surface: What it sees.
    """

    name: str
    knows_candidates: bool
    perfect_algorithm: bool
    malicious_server: bool
    surface: Surface


@dataclass(frozen=True)
class PublicSideInformation:
    """What the adversary knows without any hospital's help.

    Attributes:
        images: Public images of the same kind, float32 (P, C, H, W) in [0, 1]; never a hospital's records.
        mechanism: The hospital's announced DP-SGD parameters.
        optimizer: The hospitals' announced optimiser, with the learning rate in force at the observed step.
        expected_batch: What the noisy clipped sum was divided by: the expected number of units.
        loss: What the hospitals train on, a key of :data:`hbdp_fed.dpsgd.LOSSES`.
        class_weights: The loss's public weights; None weighs all classes alike.
        records_per_unit: How many records a drawn unit gives on average, at least 1: more where units are patients. A
            unit's clipped gradient is that of their mean, so each of them counts for so much less.
        later_rates: The learning rates of the steps after the first one, where the release is of several.
    """

    images: Tensor
    mechanism: DpSgdParams
    optimizer: OptimizerSettings
    expected_batch: float
    loss: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    records_per_unit: float = 1.0
    later_rates: tuple[float, ...] = ()

    @property
    def expected_records(self) -> float:
        """How many records a step holds on average."""
        return self.expected_batch * self.records_per_unit

    @property
    def steps(self) -> int:
        """How many DP-SGD steps lie between the weights that were handed out and the answer."""
        return 1 + len(self.later_rates)


@dataclass(frozen=True)
class StepKnowledge:
    """What a perfect algorithm is granted about one record: all but its image, so that only the noise is in the way.

    Attributes:
        others: The sum of all other records' clipped gradients in the step, by parameter name, float64. Taken from the
            noisy sum, it leaves the record's own clipped gradient plus noise.
        factor: What the record's image was multiplied by in its clipped gradient, its sign included.
    """

    others: Weights
    factor: float


@dataclass(frozen=True)
class Observation:
    """Everything an adversary may see of one release, and nothing else.

    Attributes:
        threat_model: The capabilities under which it was made.
        architecture: The model that the hospitals were handed.
        model_before: The weights that the hospitals were handed.
        released: What the adversary saw: a hospital's answer or, on the surfaces ``aggregate`` and ``global_model``,
            the hospitals' weighted mean under the name :data:`ALL_HOSPITALS`.
        public: The side information.
        knowledge: What only a perfect algorithm is granted; None for everybody else.

    Raises:
        ValueError: if it holds what its threat model does not grant.
    """

    threat_model: ThreatModel
    architecture: ModelSpec
    model_before: Weights
    released: ModelUpdate
    public: PublicSideInformation
    knowledge: StepKnowledge | None = None

    def __post_init__(self) -> None:
        if self.knowledge is not None and not self.threat_model.perfect_algorithm:
            raise ValueError(f"the {self.threat_model.name} threat model grants no knowledge of a record's step")
        alone = self.threat_model.surface in ("gradient", "update")
        if alone == (self.released.hospital == ALL_HOSPITALS):
            raise ValueError(f"the {self.threat_model.surface} surface does not show {self.released.hospital}'s answer")


@dataclass(frozen=True)
class CandidateObservation:
    """What an adversary who holds candidates sees of them in S releases: all that its likelihoods depend on.

    It knows every record but one, and takes their clipped gradients from what was released. Candidate k's own clipped
    gradient, averaged over the steps of a release, has an inner product with what is left, and a norm. The noise is
    Gaussian, so that the likelihood depends on the release through these alone. The order of the candidates tells
    nothing.

    Attributes:
        threat_model: The capabilities under which it was made.
        projections: float64 (..., S, K), the inner products.
        squared_norms: float64 (..., S, K).
        noise_variance: float64 (S,), of each coordinate of what is left; positive.
        participation: For each release, how often a record that was trained on counts in it, and with which
            probability: two float64 tensors of equal length. One step of Poisson sampling: (0, 1) and (1-q, q).

    Raises:
        ValueError: if the threat model grants no candidates.
    """

    threat_model: ThreatModel
    projections: Tensor
    squared_norms: Tensor
    noise_variance: Tensor
    participation: Sequence[tuple[Tensor, Tensor]]

    def __post_init__(self) -> None:
        if not self.threat_model.knows_candidates:
            raise ValueError(f"the {self.threat_model.name} threat model grants no candidates")


@dataclass(frozen=True)
class PopulationObservation:
    """What an adversary sees of hospitals' rounds who asks how common something is among their patients.

    Attributes:
        threat_model: The capabilities under which it was made.
        architecture: The model that the hospitals were handed.
        model_before: The weights that they were handed.
        public: The side information; its images are those of P public records.
        labels: The public records' labels, int64 (P,), (P, K) or (P, *spatial): public data sets have them.
        has_property: bool (P,), which of the public records have the property.
        released: What hospitals of the same announced mechanism and size answered to these weights. On the surface
            ``update`` each one's round; on ``gradient``, whose steps are seen one by one, the mean of their noisy
            gradients with a minus sign, which is what a step of unit length would have changed.

    Raises:
        ValueError: if the parts do not fit together.
    """

    threat_model: ThreatModel
    architecture: ModelSpec
    model_before: Weights
    public: PublicSideInformation
    labels: Tensor
    has_property: Tensor
    released: tuple[ModelUpdate, ...]

    def __post_init__(self) -> None:
        if self.threat_model.surface not in ("gradient", "update"):
            raise ValueError(f"the {self.threat_model.surface} surface shows no hospital's answer")
        if not len(self.public.images) == len(self.labels) == len(self.has_property):
            raise ValueError(
                f"{len(self.public.images)} public images have {len(self.labels)} labels and "
                f"{len(self.has_property)} marks of the property"
            )
        if len({update.num_records for update in self.released}) > 1:
            raise ValueError("released answers must be of hospitals of one size")


@dataclass(frozen=True)
class QueryObservation:
    """What an adversary sees who asked a hospital how many of some patients have something.

    Attributes:
        queries: bool (m, n), which of n patients each of m counting queries is about.
        answers: float64 (m,), the counts with their noise.
        noise_std: The announced standard deviation of the Gaussian noise on each answer, at least 0.
        prior: How common it is, in (0, 1): what a hospital of this kind would publish anyway.

    Raises:
        ValueError: if shapes or ranges are others.
    """

    queries: Tensor
    answers: Tensor
    noise_std: float
    prior: float

    def __post_init__(self) -> None:
        if self.queries.dim() != 2 or self.answers.shape != self.queries.shape[:1] or not self.queries.numel():
            raise ValueError(
                f"queries must be (m, n) and answers (m,), got {tuple(self.queries.shape)} and "
                f"{tuple(self.answers.shape)}"
            )
        if not (math.isfinite(self.noise_std) and self.noise_std >= 0):
            raise ValueError(f"noise_std must be finite and not negative, got {self.noise_std}")
        if not 0 < self.prior < 1:
            raise ValueError(f"prior must lie strictly between 0 and 1, got {self.prior}")


@dataclass(frozen=True)
class Reconstruction:
    """What an attack claims: candidate images in no particular order, most trusted first.

    Attributes:
        images: float32 (M, C, *spatial) in [0, 1]; M may be 0.
        scores: float32 (M,), the attack's own confidence, higher is surer.
        details: Plain figures about how the attack was set (for example the share of the gradient norm it took).
        unprocessed: float32, the shape of ``images`` but in no range: the estimates before anything that public images
            say was done to them; None where there is no such thing.
    """

    images: Tensor
    scores: Tensor
    details: Mapping[str, float] = field(default_factory=dict)
    unprocessed: Tensor | None = None


class Attack(Protocol):
    """An attack that rebuilds images. It sees an observation and draws from its own generator, never the truth."""

    @property
    def name(self) -> str:
        """The name that reports use."""
        ...

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild as many records as possible from ``observation``."""
        ...
