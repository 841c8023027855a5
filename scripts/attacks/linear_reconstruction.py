"""How many bits of patients the answers to counting queries give away, by how much noise is on them.

    HBDP_DATA=/path/to/data python -m scripts.attacks.linear_reconstruction --games 100
    python -m scripts.attacks.linear_reconstruction --budgets 8 1e9 -- data=phantom clients=3

Every game asks one hospital 4 n random subset queries about n = 128 of its patients ("how many of these have a label of
class 1?") and lets the adversary of a run (Dinur and Nissim 2003) tell each one's bit. Games take turns over the
hospitals; patients, queries and noise are drawn anew for each, so that games are independent but for the patients that
they have in common. What follows ``--`` are settings of a run, which say who holds what.

Prints a table as Markdown: the noise on a count, the mean share of bits told rightly with its standard error over
games, what the more common bit alone scores, and what nobody exceeds who knows all other bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.audit.queries import BITS, BUDGET, QUERIES_PER_BIT, PlayedQueries, play_queries
from hbdp_fed.data import property_called
from hbdp_fed.seeding import generator
from hbdp_fed.types import PrivacyBudget
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.program import OK, exit_code
from simulations.query_games import bits_of

DEFAULTS = ("data=pneumoniamnist", "model=cnn", "clients=5", "adversary.attack=none", "eps=inf")


def play(prepared: Prepared, budget: PrivacyBudget, games: int, seed: int) -> list[PlayedQueries]:
    """So many games, hospital after hospital."""
    held = bits_of(prepared)
    names = list(held)
    attack = LinearReconstruction()
    return [
        play_queries(
            held[names[game % len(names)]],
            hospital=names[game % len(names)],
            attack=attack,
            budget=budget,
            accountant=prepared.accountant,
            stream=generator(seed, "audit", game, "queries"),
            adversary=generator(seed, "adversary", game, "queries"),
        )
        for game in range(games)
    ]


def rows(played: Sequence[PlayedQueries], budget: float) -> list[str]:
    """A line a noise."""
    lines = []
    guesses = np.array([max(one.ones, one.bits - one.ones) / one.bits for one in played])
    for place, answered in enumerate(played[0].answered):
        rates = np.array([one.answered[place].right / one.bits for one in played])
        best = float(np.mean([one.answered[place].best_possible for one in played]))
        noise = f"budget {budget:g}" if answered.noise == BUDGET else answered.noise
        error, gap = (float(x.std(ddof=1)) / len(played) ** 0.5 for x in (rates, rates - guesses))
        lines.append(
            f"| {noise} | {answered.noise_std:.4g} | {rates.mean():.2%} ± {error:.2%} | {guesses.mean():.2%} | "
            f"{(rates - guesses).mean():+.2%} ± {gap:.2%} | {best:.2%} |"
        )
    return lines


def table(prepared: Prepared, budgets: Sequence[float], games: int, seed: int) -> list[str]:
    """All budgets; what does not depend on them is told once."""
    lines = [
        "| noise | standard deviation | bits told | more common bit | difference | best possible |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for budget in budgets:
        told = rows(play(prepared, PrivacyBudget(budget, prepared.config.delta), games, seed), budget)
        lines += [line for line in told if line not in lines]
    return lines


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--games", type=int, default=100, help="how many, at least 2")
    found.add_argument("--budgets", type=float, nargs="+", default=[8.0, 1e9], help="epsilons of all answers together")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("settings", nargs="*", help="of a run, after --")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return exit_code(lambda: _main(options))


def _main(options: Any) -> int:
    prepared = prepare(typed(compose_run([*DEFAULTS, *options.settings])))
    held = bits_of(prepared)
    described = property_called(prepared.config.adversary.property, prepared.dataset).words
    sizes = sorted({min(BITS, len(bits)) for bits in held.values()})
    print(
        f"{options.games} games on {prepared.dataset.name} at {len(held)} hospitals: {described}, n = "
        f"{', '.join(map(str, sizes))}, m = {QUERIES_PER_BIT} n, delta {prepared.config.delta:g}"
    )
    print("\n".join(table(prepared, options.budgets, options.games, options.seed)))
    return OK


if __name__ == "__main__":
    sys.exit(main())
