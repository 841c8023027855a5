"""A hospital's check of the models that it receives: whether one was made to give records away."""

from hbdp_fed.screening.honest import Effort, Training, honest_models
from hbdp_fed.screening.looking import Look, References, look_at
from hbdp_fed.screening.measures import MEASURES, Measure
from hbdp_fed.screening.screen import STRUCTURE, Finding, Range, Screen, Verdict, ranges_of
from hbdp_fed.screening.structure import structural_problems

__all__ = [
    "MEASURES",
    "STRUCTURE",
    "Effort",
    "Finding",
    "Look",
    "Measure",
    "Range",
    "References",
    "Screen",
    "Training",
    "Verdict",
    "honest_models",
    "look_at",
    "ranges_of",
    "structural_problems",
]
