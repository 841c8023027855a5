"""What all pages and texts have in common: names are text, tables can be read aloud, nothing is fetched, and size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbdp_fed.report import (
    render_plan_markdown,
    render_plan_report,
    render_report,
    render_report_markdown,
    render_sweep_markdown,
    render_sweep_report,
    report_figures,
)
from tests.report.examples import plan, recommendation, sweep
from tests.report.test_run_report import attacked, full, segmentation, summary

EVIL = "<script>alert(1)</script>"
NAMES = (EVIL, "hospital-02", "a|b*c_d`e`", "![x](http://example.org/x.png)")
VOID = {"meta", "img"}


def evil_run() -> dict[str, Any]:
    """Names that would do something, wherever a run has names."""
    text = json.dumps(full() | {"risk": attacked()["risk"], "participation": {"expected": 1}})
    for name in ("hospital-01", "<phantom>", "<mel>", "<female>", "sex", "lesion", "imprint"):
        text = text.replace(json.dumps(name), json.dumps(EVIL))
    return json.loads(text)  # type: ignore[no-any-return]


def evil_sweep() -> dict[str, Any]:
    found = sweep(names=NAMES, sizes=(900, 800, 700, 600), dataset=EVIL)
    found["groups"][0]["values"] = {"partition.scheme": EVIL}
    found |= {"settings": [f"data={EVIL}"], "model": EVIL}
    found["failures"][0]["reason"] = EVIL
    return found


PAGES: dict[str, Callable[[], str]] = {
    "run": lambda: render_report(evil_run(), settings={EVIL: EVIL}, environment={"python": EVIL}),
    "sweep": lambda: render_sweep_report(evil_sweep(), recommendation=recommendation(), grids={EVIL: b"g"}),
    "plan": lambda: render_plan_report(
        plan(names=NAMES, sizes=(900, 800, 700, 600), dataset=EVIL, advice=recommendation("none")) | {"name": EVIL}
    ),
    "sparse run": lambda: render_report(summary()),
    "segmentation": lambda: render_report(segmentation()),
}
TEXTS: dict[str, Callable[[], str]] = {
    "run": lambda: render_report_markdown(
        evil_run(), settings={EVIL: EVIL}, environment={"python": EVIL}, pictures={"matrix": "figures/matrix.png"}
    ),
    "sweep": lambda: render_sweep_markdown(evil_sweep(), recommendation=recommendation()),
    "plan": lambda: render_plan_markdown(
        plan(names=NAMES, sizes=(900, 800, 700, 600), dataset=EVIL, advice=recommendation()) | {"name": EVIL}
    ),
    "sparse run": lambda: render_report_markdown(summary()),
    "segmentation": lambda: render_report_markdown(segmentation()),
}


# Every test of a page reads the same one.
PAGES = {name: cache(render) for name, render in PAGES.items()}
TEXTS = {name: cache(render) for name, render in TEXTS.items()}


class Outline(HTMLParser):
    """The page's elements: what is open at an end tag, and what tables, pictures and headings there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.captions = 0
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption" and self.open[-2] != "table":
            self.wrong.append("a caption outside of a table")

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes something else")

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    return found


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_well_formed_and_can_be_read_aloud(page: Callable[[], str]) -> None:
    found = outline(page())
    assert not found.wrong
    assert not found.open
    assert found.of("html") == [{"lang": "en"}]
    assert len(found.of("h1")) == 1
    assert len(found.of("main")) == len(found.of("header")) == len(found.of("footer")) == 1
    assert found.of("a")[0] == {"class": "skip", "href": "#main"}
    assert len(found.of("caption")) == len(found.of("table")) > 0
    assert all(attrs.get("scope") in {"col", "row", "rowgroup"} for attrs in found.of("th"))
    assert all(attrs.get("alt") for attrs in found.of("img"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs["href"])[1:] for attrs in found.of("a")}
    assert targets <= set(map(str, ids))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_asks_nobody_for_anything_and_runs_one_script(page: Callable[[], str]) -> None:
    text = page()
    found = outline(text)
    assert all(str(attrs["src"]).startswith("data:image/png;base64,") for attrs in found.of("img"))
    assert not found.of("link")
    assert len(found.of("script")) == 1
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    policy = next(str(attrs["content"]) for attrs in found.of("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}';", policy)
    # No style fetches anything either.
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize("name", ["run", "sweep", "plan"])
def test_names_are_text_on_every_page(name: str) -> None:
    page = PAGES[name]()
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3


@pytest.mark.parametrize("name", ["run", "sweep", "plan"])
def test_names_are_text_in_markdown(name: str) -> None:
    text = TEXTS[name]()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3
    assert "![x](" not in text
    if name != "run":
        assert r"a\|b\*c\_d\`e\`" in text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_table_of_a_text_has_as_many_cells_in_every_row(text: Callable[[], str]) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", text(), flags=re.M)
    assert tables
    for table in tables:
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(cells)) == 1
        assert re.fullmatch(r"\|(:?-+:?\|)+", table.splitlines()[1])
    assert "None" not in text()
    assert "Withheld" not in text()


def test_a_page_with_pictures_of_full_size_stays_below_five_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 1500), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    # Noise is the worst that a reconstruction can look like.
    grid = (tmp_path / "noise.png").read_bytes()
    assert len(grid) > 800_000
    page = render_sweep_report(sweep(), recommendation=recommendation(), grids={"imprint_gradient": grid, "b": grid})
    assert len(page.encode()) < 5e6


RUNS = Path(__file__).resolve().parents[2] / "runs"


@pytest.mark.parametrize("missing", ["partition", "validation_history", "participation", "ledger", "hyperparameters"])
def test_a_summary_of_an_older_version_is_reported_all_the_same(missing: str) -> None:
    older = {name: value for name, value in full().items() if name != missing}
    older["hyperparameters"] = {"precision": "float32"}
    assert "In plain words" in render_report(older)
    assert "In plain words" in render_report_markdown(older)


@pytest.mark.skipif(not list(RUNS.glob("**/summary.json")), reason="there are no finished runs in runs/")
def test_every_finished_run_here_is_reported() -> None:
    for path in sorted(RUNS.glob("**/summary.json"))[:40]:
        found = json.loads(path.read_text())
        if "utility" in found and "noise_to_resolution" in found:
            report_figures(found)
            assert "Limits of the claim" in render_report(found)
            assert "Limits of the claim" in render_report_markdown(found)
