"""The console script: ``hbdp-fed run clients=5`` is ``python -m simulations.run clients=5``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from hbdp_fed import __version__


def _run(arguments: Sequence[str]) -> int:
    from simulations.run import main as run  # imported when asked for: `hbdp-fed --version` need not load PyTorch

    return run(arguments)


def _sweep(arguments: Sequence[str]) -> int:
    from simulations.sweep.__main__ import main as sweep

    return sweep(arguments)


def _budget(arguments: Sequence[str]) -> int:
    from simulations.budget import main as budget

    return budget(arguments)


def _attack(arguments: Sequence[str]) -> int:
    from simulations.attack import main as attack

    return attack(arguments)


def _compare(arguments: Sequence[str]) -> int:
    from simulations.compare import main as compare

    return compare(arguments)


def _predict(arguments: Sequence[str]) -> int:
    from simulations.predict import main as predict

    return predict(arguments)


def _docs(arguments: Sequence[str]) -> int:
    from simulations.docs import main as docs

    return docs(arguments)


def _plan(arguments: Sequence[str]) -> int:
    from simulations.plan import main as plan

    return plan(arguments)


def _ledger(arguments: Sequence[str]) -> int:
    from simulations.ledger import main as ledger

    return ledger(arguments)


def _runs(arguments: Sequence[str]) -> int:
    from simulations.runs import main as runs

    return runs(arguments)


def _cache(arguments: Sequence[str]) -> int:
    from simulations.cache import main as cache

    return cache(arguments)


COMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "run": ("train a federation under a budget and attack it", _run),
    "sweep": ("which budget: runs over budgets and seeds, and what they come to together", _sweep),
    "attack": ("attack what an old run recorded, without training", _attack),
    "budget": ("what each budget costs and what it prevents, before any training", _budget),
    "plan": ("what a consortium can expect of each budget, and which one a sweep recommends", _plan),
    "runs": ("which runs there are, how far they came and what came of them", _runs),
    "cache": ("the prepared records that runs keep, their sizes, and how to delete them", _cache),
    "predict": ("what a run's released model says of images that you have", _predict),
    "compare": ("two runs or sweeps side by side: what was set differently and what came of it", _compare),
    "ledger": ("whether an old run's privacy ledger is what the run wrote", _ledger),
    "docs": ("pages about the threat models, own data, and how to read what a run tells", _docs),
}
"""Subcommands with a line of help each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Dispatch to a subcommand; returns its exit code, 2 for an unknown one."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(__version__)
        return 0
    if not given or given[0] in {"-h", "--help"}:
        print("usage: hbdp-fed COMMAND [key=value ...]\n")
        for name, (text, _) in COMMANDS.items():
            print(f"  {name:8} {text}")
        print("\nhbdp-fed COMMAND --help tells the rest.")
        return 0
    if given[0] not in COMMANDS:
        print(f"error: '{given[0]}' is not a command; choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return COMMANDS[given[0]][1](given[1:])


if __name__ == "__main__":
    sys.exit(main())
