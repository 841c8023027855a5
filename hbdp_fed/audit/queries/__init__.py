"""Counting queries about a hospital's patients, and how many of their bits the answers gave away."""

from hbdp_fed.audit.queries.figures import SURFACE, QueryFigures, QueryPoint, query_figures
from hbdp_fed.audit.queries.game import (
    BITS,
    BUDGET,
    FAILING,
    NONE,
    QUERIES_PER_BIT,
    AnsweredQueries,
    PlayedQueries,
    noises,
    patients_bits,
    play_queries,
)

__all__ = [
    "BITS",
    "BUDGET",
    "FAILING",
    "NONE",
    "QUERIES_PER_BIT",
    "SURFACE",
    "AnsweredQueries",
    "PlayedQueries",
    "QueryFigures",
    "QueryPoint",
    "noises",
    "patients_bits",
    "play_queries",
    "query_figures",
]
