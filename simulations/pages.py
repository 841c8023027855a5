"""A page of tables with remarks, for a terminal or as Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_FILE_WIDTH = 120


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        title: What it is about.
        columns: Their names; the first column says what a row is about.
        rows: A text a column; without any, the remarks stand alone.
        remarks: Sentences below it.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    remarks: tuple[str, ...] = ()


def show_page(console: Console, title: str, sections: Sequence[Section]) -> None:
    """The sections one below the other."""
    console.print(title, style="bold", markup=False, soft_wrap=True)
    for section in sections:
        console.print()
        if section.rows:
            table = Table(title=escape(section.title), title_justify="left", title_style="bold")
            for place, name in enumerate(section.columns):
                table.add_column(escape(name), justify="left" if place == 0 else "right", overflow="fold")
            for row in section.rows:
                table.add_row(*map(escape, row))
            console.print(table)
        else:
            console.print(section.title, style="bold", markup=False, soft_wrap=True)
        for remark in section.remarks:
            console.print(remark, markup=False, soft_wrap=True)


def as_text(title: str, sections: Sequence[Section]) -> str:
    """What :func:`show_page` would show, for a file."""
    page = io.StringIO()
    show_page(Console(file=page, width=_FILE_WIDTH, highlight=False), title, sections)
    return page.getvalue()


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same as a Markdown document."""
    return "\n".join(_markdown_lines(title, sections)) + "\n"


def _markdown_lines(title: str, sections: Sequence[Section]) -> Iterator[str]:
    yield f"# {_cell(title)}"
    for section in sections:
        yield ""
        yield f"## {_cell(section.title)}"
        if section.rows:
            yield ""
            yield f"| {' | '.join(map(_cell, section.columns))} |"
            yield "|" + "---|" * len(section.columns)
            for row in section.rows:
                yield f"| {' | '.join(map(_cell, row))} |"
        for remark in section.remarks:
            yield ""
            yield remark


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
