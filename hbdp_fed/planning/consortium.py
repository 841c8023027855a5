"""A consortium as it is written down before any training: hospitals, task, images, model, training and target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from hbdp_fed.dpsgd.sampling import BATCH_PER
from hbdp_fed.errors import SettingError
from hbdp_fed.planning.reading import (
    Count,
    CountOrNone,
    NotNegative,
    OpenUnit,
    Positive,
    PositiveOrInfinite,
    Section,
    Share,
    Text,
    read_as,
)
from hbdp_fed.privacy import Accountant
from hbdp_fed.training.pace import SiteProfile

LARGEST_BUDGET = 1e20
"""Far beyond what the accountants are made for (1e15); who asks for more means ``inf``."""

DEFAULT_WATTS = 150.0
"""What a hospital's computer is taken to draw while it computes, unless it says otherwise: an assumption."""

_LINE = SiteProfile()


class HospitalEntry(Section):
    """One hospital.

    Attributes:
        name: Its own, unlike all others'.
        records: Training records (images or volumes) that it holds.
        patients: Of how many people they are; None where nobody counted.
        ceiling: The highest epsilon that it takes part for; None takes part for any.
        gpu: Its accelerator in words. It tells people whose speed ``records_per_s`` is; nothing is computed from it.
        records_per_s: Record gradients that it computes a second for this model and image size, every view counted;
            None takes what a calibration measures on this machine.
        download_mbit_s: From the server, in 1e6 bits a second.
        upload_mbit_s: To the server.
        latency_s: Seconds that a round costs whatever is sent.
        availability: The probability that it can be reached in a round.
        watts: What its computer draws while it computes.
    """

    name: Text
    records: Count
    patients: Count | None = None
    ceiling: PositiveOrInfinite | None = None
    gpu: Text | None = None
    records_per_s: Positive | None = None
    download_mbit_s: Positive = _LINE.download_mbit_s
    upload_mbit_s: Positive = _LINE.upload_mbit_s
    latency_s: NotNegative = _LINE.latency_s
    availability: Share = _LINE.availability
    watts: NotNegative = DEFAULT_WATTS


def _sides(value: Any) -> Any:
    """``size: 64`` is a square."""
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


class ImageEntry(Section):
    """What a record's image is like.

    Attributes:
        size: Pixels a side, two or three numbers; one number is a square.
        channels: 1 for grey, 3 for colour.
        rms: Root mean square of the pixel values in [0, 1]: how bright images are.
    """

    size: Annotated[tuple[Count, ...], BeforeValidator(_sides), Field(min_length=2, max_length=3)]
    channels: Count = 1
    rms: Share = 0.5

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        return (self.channels, *self.size)


class ModelEntry(Section):
    """The model: a name of the registry, and beside it that builder's own keywords, such as ``width``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Text


class TrainingEntry(Section):
    """Local training, in the words of a run's ``training`` settings.

    Attributes:
        rounds: Training rounds.
        local_steps: DP-SGD steps a hospital takes in a round.
        expected_batch: Wanted expected batch, of one hospital or of all together (``batch_per``).
        batch_per: ``hospital`` or ``federation``.
        learning_rate: Of the local optimiser. No figure of the plan depends on it.
        max_grad_norm: Clipping norm.
        multiplicity: Views of a record over which its gradient is averaged.
        spare_steps: Steps that the noise is calibrated to besides those of training, such as an adversary's probes.
        optimizer: Of hospitals.
        precision: In which layers compute.
        augmentation: Of the views.
    """

    rounds: Count
    local_steps: Count
    expected_batch: Positive
    batch_per: Literal["hospital", "federation"] = "hospital"
    learning_rate: Positive | None = None
    max_grad_norm: Positive = 1.0
    multiplicity: Count = 1
    spare_steps: CountOrNone = 0
    optimizer: Text = "sgd"
    precision: Text = "float32"
    augmentation: Text = "none"

    @property
    def steps(self) -> int:
        """T: all steps that the noise is calibrated to."""
        return self.rounds * self.local_steps + self.spare_steps


class JudgingEntry(Section):
    """How much a simulation of the consortium judges; its time depends on it.

    Attributes:
        validation_records: Records that every judged round's model is run over; 0 leaves them out of account.
        test_records: Records that the released model is run over at the end.
        every: Every so many rounds the model is judged.
    """

    validation_records: CountOrNone = 0
    test_records: CountOrNone = 0
    every: Count = 1


class TargetEntry(Section):
    """What the consortium wants, in the words of a policy; whatever is left out is the policy's own default."""

    metric: Text | None = None
    margin: Positive | None = None
    risk: OpenUnit | None = None
    least_records: Count | None = None


class Consortium(Section):
    """All of it.

    Attributes:
        name: In a word.
        description: For people.
        task: What the model is asked for.
        classes: Of the answers: 2 for ``binary``, the number of findings for ``multilabel``.
        dataset: Where a simulation's data would come from; for people.
        image: What images are like.
        model: What is trained.
        training: How.
        judging: What a simulation judges.
        delta: Of every hospital's budget.
        budgets: The epsilons to compare, ascending, ``inf`` for training without protection.
        accountant: By which they are meant.
        prior: How likely a guess names a record without any release.
        target: What the consortium wants.
        hospitals: At least two.
    """

    name: Text
    description: str = ""
    task: Literal["binary", "multiclass", "multilabel", "segmentation"]
    classes: Count = 2
    dataset: Text | None = None
    image: ImageEntry
    model: ModelEntry
    training: TrainingEntry
    judging: JudgingEntry = JudgingEntry()
    delta: OpenUnit = 1e-5
    budgets: Annotated[tuple[PositiveOrInfinite, ...], Field(min_length=1)] = (1.0, 8.0, 1e6, 1e9, 1e12)
    accountant: Accountant = "rdp"
    prior: OpenUnit = 0.01
    target: TargetEntry = TargetEntry()
    hospitals: Annotated[tuple[HospitalEntry, ...], Field(min_length=2)]

    @property
    def records(self) -> int:
        """Of all hospitals."""
        return sum(hospital.records for hospital in self.hospitals)

    def expected_batch(self, hospital: HospitalEntry) -> float:
        """The hospital's own, at most its records."""
        share = hospital.records / self.records
        return min(hospital.records, BATCH_PER[self.training.batch_per](self.training.expected_batch, share))

    def without(self, name: str) -> Consortium:
        """The consortium that is left when this hospital leaves."""
        rest = tuple(hospital for hospital in self.hospitals if hospital.name != name)
        return self.model_copy(update={"hospitals": rest})


def read_consortium(value: Any) -> Consortium:
    """A consortium from plain mappings and lists.

    Raises:
        SettingError: about the first thing that is wrong, naming its place and what it accepts.
    """
    found = read_as(Consortium, value)
    check(found)
    return found.model_copy(update={"budgets": tuple(sorted(found.budgets))})


def check(consortium: Consortium) -> None:
    """Refuse what no single field shows to be wrong.

    Raises:
        SettingError: as :func:`read_consortium`.
    """
    _check_names(consortium.hospitals)
    for place, hospital in enumerate(consortium.hospitals):
        key = f"hospitals[{place}]"
        if hospital.patients is not None and hospital.patients > hospital.records:
            raise SettingError(
                f"{key}.patients",
                f"must be at most the {hospital.records} records, of which each is one patient's; got "
                f"{hospital.patients}",
            )
        if hospital.gpu is not None and hospital.records_per_s is None:
            raise SettingError(
                f"{key}.records_per_s",
                "is missing: the speed of a GPU for this model is measured where it stands, with calibrate=true",
            )
        if consortium.delta >= 1 / hospital.records:
            raise SettingError(
                "delta",
                f"{consortium.delta:g} must be below 1/records = {1 / hospital.records:g} of {hospital.name}",
            )
    check_budgets(consortium.budgets)
    if consortium.task == "binary" and consortium.classes != 2:
        raise SettingError("classes", f"must be 2 for a binary task, got {consortium.classes}")


def check_budgets(budgets: Sequence[float]) -> None:
    """Refuse budgets that are given twice, or too large to be a number.

    Raises:
        SettingError: naming the place.
    """
    for place, eps in enumerate(budgets):
        if eps in budgets[:place]:
            raise SettingError(f"budgets[{place}]", f"{eps:g} is given twice")
        if not (0 < eps <= LARGEST_BUDGET or eps == math.inf):
            raise SettingError(
                f"budgets[{place}]", f"must be positive and up to {LARGEST_BUDGET:g}, or inf, got {eps:g}"
            )


def _check_names(hospitals: Sequence[HospitalEntry]) -> None:
    seen: dict[str, int] = {}
    for place, hospital in enumerate(hospitals):
        if hospital.name in seen:
            raise SettingError(
                f"hospitals[{place}].name", f"'{hospital.name}' is already the name of hospitals[{seen[hospital.name]}]"
            )
        seen[hospital.name] = place


def model_settings(entry: ModelEntry) -> Mapping[str, Any]:
    """The builder's own keywords."""
    return entry.model_extra or {}
