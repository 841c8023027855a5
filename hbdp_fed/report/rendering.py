"""How pages and texts are written: Jinja2 with the words and figures of the audit, and one look for all."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hbdp_fed.audit.numbers import DASH, show_count, show_duration, show_number, show_percent, show_similarity
from hbdp_fed.audit.wording import Figures, interval, metric, plural, with_interval, written
from hbdp_fed.report.budgets import eps_words
from hbdp_fed.report.suppression import Withheld

_MEANINGFUL = re.compile(r"[\\`*_{}\[\]<>&|#~!$]")

Show = Callable[[Any], str]


def or_withheld(show: Show) -> Callable[[Any], Any]:
    """``show`` for everything but what is withheld, which speaks for itself."""

    @wraps(show)
    def shown(value: Any) -> Any:
        return value if isinstance(value, Withheld) else show(value)

    return shown


def figure(name: str, figures: Figures) -> Any:
    """A metric's value as it is shown."""
    value = figures.get(name)
    return value if isinstance(value, Withheld) else written(name, value, missing=DASH)


def figure_with_interval(name: str, figures: Figures) -> Any:
    """A metric's value with its 95% interval."""
    value = figures.get(name)
    return value if isinstance(value, Withheld) else with_interval(name, figures, missing=DASH)


def spoken(name: str) -> str:
    """A name of the code as people say it."""
    return str(name).replace("_", " ")


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def inline(png: bytes) -> str:
    """A picture as a page holds it."""
    return base64.b64encode(png).decode()


@cache
def _environment(finalize: Callable[[Any], Any] | None = None) -> Environment:
    environment = Environment(
        loader=PackageLoader("hbdp_fed.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
    )
    environment.filters |= {
        "number": or_withheld(show_number),
        "percent": or_withheld(show_percent),
        "similarity": or_withheld(show_similarity),
        "count": or_withheld(show_count),
        "duration": or_withheld(show_duration),
        "points": lambda share: f"{100 * share:.1f} percentage points",
        "eps": eps_words,
        "times": or_withheld(lambda factor: DASH if factor is None else f"{factor:.2f} times"),
        # Along a line of 100%.
        "place": lambda share: f"{100 * min(max(share, 0.0), 1.0):.2f}%",
        "sentence": sentence,
        "spoken": spoken,
        "plural": plural,
        "meaning": lambda name: metric(name).meaning,
        "look_up_or_dash": lambda name, names: names.get(name, DASH),
        "look_up": lambda name, names: names[name],
        "figure_of": figure_with_interval,
        "of_class": lambda name, own, figures: figure_with_interval(own[name], figures) if name in own else DASH,
        "count_of": lambda name, counts: or_withheld(show_count)(counts.get(name, 0)),
        # Of a picture that lies beside a text.
        "path": lambda path: Markup(quote(path)),
        "is_withheld": lambda value: isinstance(value, Withheld),
    }
    environment.globals |= {"figure": figure, "interval": interval, "with_interval": figure_with_interval}
    return environment


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """A page as HTML. Everything that is put in is escaped; the one script is allowed by its hash."""
    environment = _environment()
    script = Markup(environment.get_template("page.js.j2").render())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(script=script, script_hash=f"sha256-{digest}", **context)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as lines, ``training.rounds`` and its value as one types it."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _typed(value)


def _typed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_typed(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_typed(part) for part in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


def render_text(template: str, context: Mapping[str, Any]) -> str:
    """A text as GitHub-flavoured Markdown. Everything that is put in is escaped."""
    environment = _environment(finalize=as_markdown)
    environment.globals |= {"row": markdown_row, "head": markdown_head}
    lines = environment.get_template(template).render(**context).splitlines()
    return _tidy(lines)


def as_markdown(value: Any) -> Any:
    """Text in which no sign has a meaning in Markdown or HTML; what a template marks as safe is left as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(_MEANINGFUL.sub(_neutral, " ".join(str(value).split())))


def markdown_row(cells: Sequence[Any]) -> Markup:
    """A table's row."""
    return Markup("| ") + Markup(" | ").join(as_markdown(cell) for cell in cells) + Markup(" |")


def markdown_head(cells: Sequence[Any], text: int = 1) -> Markup:
    """A table's first row and the line that makes it a table: ``text`` columns at the left, figures at the right."""
    rule = "".join(":---|" if place < text else "---:|" for place in range(len(cells)))
    return markdown_row(cells) + Markup(f"\n|{rule}")


def _neutral(found: re.Match[str]) -> str:
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(found[0], f"\\{found[0]}")


def _tidy(lines: Sequence[str]) -> str:
    """Without spaces at ends, and with one empty line where there were several."""
    stripped = [line.rstrip() for line in lines]
    kept = [line for line, before in zip(stripped, ["", *stripped], strict=False) if line or before]
    return "\n".join(kept).strip() + "\n"
