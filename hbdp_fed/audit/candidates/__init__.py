"""The games of the worst case: who was trained on, and what a federation's releases tell of that."""

from hbdp_fed.audit.candidates.figures import (
    IdentificationFigures,
    MembershipFigures,
    identification_figures,
    membership_figures,
)
from hbdp_fed.audit.candidates.game import CandidateGame, Played, draw_game
from hbdp_fed.audit.candidates.releases import LINEAR, ReplayDiffers, play_rounds, play_steps

__all__ = [
    "LINEAR",
    "CandidateGame",
    "IdentificationFigures",
    "MembershipFigures",
    "Played",
    "ReplayDiffers",
    "draw_game",
    "identification_figures",
    "membership_figures",
    "play_rounds",
    "play_steps",
]
