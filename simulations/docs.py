"""The pages that travel with the package: ``python -m simulations.docs [PAGE]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources

from rich.console import Console
from rich.markdown import Markdown

from hbdp_fed.errors import UserError, unknown_choice
from simulations.program import OK, exit_code

PAGES = (
    "worst_case",
    "relaxed",
    "realistic",
    "reading_the_table",
    "own_data",
    "adding_an_attack",
    "settings",
    "failures",
    "deployment",
    "measurements",
)
"""The pages' names, in the order in which a newcomer reads them."""

_WIDTH = 120

HELP = """usage: python -m simulations.docs [PAGE]

Shows a page in the terminal, and its Markdown where the output goes elsewhere. Without PAGE it lists them.

exit codes: 0 shown, 2 there is no such page
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    console = Console(highlight=False)
    if any(argument in {"-h", "--help"} for argument in given):
        console.print(HELP, markup=False, soft_wrap=True)
        return OK
    if len(given) > 1:
        raise UserError(f"name one page, got {', '.join(given)}")
    if not given:
        for name in PAGES:
            console.print(f"  {name:18} {title(name)}", markup=False, soft_wrap=True)
        console.print("\nhbdp-fed docs PAGE shows one.", soft_wrap=True)
        return OK
    text = page(given[0].removesuffix(".md"))
    if console.is_terminal:
        console.print(Markdown(text, hyperlinks=False), width=min(console.width, _WIDTH))
    else:
        sys.stdout.write(text)
    return OK


def page(name: str) -> str:
    """The Markdown of a page.

    Raises:
        SettingError: if there is no such page.
    """
    if name not in PAGES:
        raise unknown_choice("page", name, PAGES)
    return resources.files("hbdp_fed").joinpath("docs", f"{name}.md").read_text(encoding="utf-8")


def title(name: str) -> str:
    """A page's heading."""
    return page(name).splitlines()[0].removeprefix("# ")


if __name__ == "__main__":
    sys.exit(main())
