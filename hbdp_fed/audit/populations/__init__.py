"""Populations of a hospital's records that differ in how common a property is, and how well they were told apart."""

from hbdp_fed.audit.populations.figures import PopulationFigures, population_figures
from hbdp_fed.audit.populations.game import (
    LARGEST,
    SMALLEST,
    PlayedPopulations,
    play_populations,
    population_size,
)

__all__ = [
    "LARGEST",
    "SMALLEST",
    "PlayedPopulations",
    "PopulationFigures",
    "play_populations",
    "population_figures",
    "population_size",
]
