"""Whom a run's budget is for: its records, or its patients with all of their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.data import FederatedDataset, Hospital, ImageDataset
from hbdp_fed.dpsgd import count_patients
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.types import UNITS, PatientCount
from simulations.recipes import Hyperparameters
from simulations.schema import RunConfig

PATIENT = "patient"


@dataclass(frozen=True)
class Units:
    """The units of privacy of a run.

    Attributes:
        word: What one is called: ``record``, or what the data set's groups are, as a rule ``patient``.
        by_site: How many each site has, in the order of :attr:`hbdp_fed.data.FederatedDataset.sites`.
        records_per_patient: The most records of one patient in a step; None where each record is a unit.
    """

    word: str
    by_site: tuple[int, ...]
    records_per_patient: int | None = None

    def patients_of(self, hospital: Hospital) -> PatientCount | None:
        """The hospital's patients; None where its records are the units."""
        if self.records_per_patient is None or hospital.records.groups is None:
            return None
        return count_patients(hospital.records.groups, self.records_per_patient)

    def batch_of(self, hospital: Hospital, hyper: Hyperparameters) -> float:
        """The wanted expected batch: as with everybody, whoever takes part; of pooled sites, all of their batches.

        So a unit's chance to be drawn into a step is the same in the federation, alone and pooled, and so is the noise.
        """
        total, sizes = sum(self.by_site), [self.by_site[site] for site in hospital.sites]
        if len(sizes) == 1:
            return hyper.batch_of(sizes[0], federation=total)
        # Whom two sites know is in the pool once, with one chance to be drawn.
        once = self.held_by(hospital) / sum(sizes)
        return once * sum(min(size, hyper.batch_of(size, federation=total)) for size in sizes)

    def held_by(self, hospital: Hospital) -> int:
        """How many a hospital has."""
        patients = self.patients_of(hospital)
        return hospital.size if patients is None else patients.patients


def check_unit(config: RunConfig) -> None:
    """What can be checked without data.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    privacy = config.privacy
    if privacy.unit not in UNITS:
        raise unknown_choice("privacy.unit", privacy.unit, UNITS)
    if privacy.records_per_patient < 1:
        raise SettingError("privacy.records_per_patient", f"must be at least 1, got {privacy.records_per_patient}")
    if privacy.unit == PATIENT and config.federation.elsewhere:
        raise SettingError(
            "privacy.unit",
            "must be record with federation.elsewhere, which says how many records a hospital holds and not of how "
            "many patients they are",
        )


def units_of(config: RunConfig, dataset: ImageDataset, federated: FederatedDataset) -> Units:
    """The units of a run.

    Raises:
        SettingError: if patients are asked for where nobody knows which records are of one patient.
    """
    if config.privacy.unit != PATIENT:
        return Units("record", federated.site_sizes)
    if federated.site_groups is None:
        raise SettingError(
            "privacy.unit",
            f"must be record for {dataset.name}, which does not say which records are of one patient; "
            "patient needs a data set with groups, as chest_xray or ham10000",
        )
    word = PATIENT if dataset.group == "record" else dataset.group
    return Units(word, federated.site_groups, config.privacy.records_per_patient)


def check_batches(units: Units, hospitals: Sequence[Hospital], hyper: Hyperparameters) -> None:
    """Refuse a batch that no hospital has patients for: it was meant in records.

    A single hospital that is smaller than its batch takes all of its patients in every step, as it would its records.

    Raises:
        SettingError: if every hospital would.
    """
    if units.records_per_patient is None:
        return
    wanted = {hospital.name: units.batch_of(hospital, hyper) for hospital in hospitals}
    held = {hospital.name: sum(units.by_site[site] for site in hospital.sites) for hospital in hospitals}
    if all(batch > held[name] for name, batch in wanted.items()):
        largest = max(held, key=lambda name: held[name])
        raise SettingError(
            "training.expected_batch",
            f"counts {units.word}s with privacy.unit={PATIENT}: {wanted[largest]:g} a step are more than any hospital "
            f"has, the largest being {largest} with {held[largest]}",
        )
