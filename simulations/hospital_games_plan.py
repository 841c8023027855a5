"""Which games about whole hospitals a run can be put to: about their populations, and about counting queries."""

from __future__ import annotations

from collections.abc import Sequence

from hbdp_fed.adversary import ATTACKS
from hbdp_fed.adversary.registry import Kind
from hbdp_fed.data import ImageDataset, check_property, property_called
from hbdp_fed.errors import SettingError
from hbdp_fed.training import NO_CORRECTION, LocalSettings
from hbdp_fed.types import Surface
from simulations.schema import AdversaryConfig

OF_HOSPITALS: tuple[Kind, ...] = ("property", "queries")
"""The kinds of attack that need nothing of what a run recorded."""


def obstacle_of_hospitals(
    name: str, adversary: AdversaryConfig, dataset: ImageDataset, local: LocalSettings, *, surfaces: Sequence[Surface]
) -> tuple[str, str] | None:
    """The setting that rules such an attack out, and how; None if nothing does.

    Args:
        name: The attack.
        adversary: Its settings.
        dataset: What is trained on.
        local: How hospitals train.
        surfaces: Of those that are seen, the ones that show hospitals one by one.

    Raises:
        SettingError: if ``adversary.property`` names nothing that the data set has.
    """
    wanted = property_called(adversary.property, dataset)
    if ATTACKS[name].kind == "queries":
        if dataset.task == "segmentation" and adversary.property is None:
            return "adversary.attack", (
                f"{name} is about a bit of every patient, and this is a segmentation: name one by adversary.property, "
                "or leave it out"
            )
        return None
    if not surfaces:
        return "adversary.surfaces", f"must have gradient or update for {name}, which is about single hospitals"
    if local.records_per_patient is not None:
        return "privacy.unit", f"must be record for {name}, whose shadow hospitals have records and no patients"
    if local.correction != NO_CORRECTION:
        return "training.correction", f"must be {NO_CORRECTION} for {name}, which takes a hospital's steps by itself"
    try:
        check_property(wanted, dataset.val)
    except SettingError as error:
        # What the data has not is no news where nobody named it.
        return "adversary.attack" if adversary.property is None else error.key, f"{name}: {error.problem}"
    return None
