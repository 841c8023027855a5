"""Opens reports in headless Chromium and holds them against what a page for people has to keep.

No console error, no request that leaves the page, all pictures loaded, tables that sort by mouse and by keyboard,
labels and contrast by axe-core (WCAG 2 A and AA) in the light and in the dark theme; screenshots and a PDF to look at.

    pip install -c constraints.txt '.[browser]'      # and Chromium, as in: apt-get install chromium
    python scripts/check_report.py runs/<a run>/report.html [--output FOLDER] [--chromium PATH]

Exit codes: 0 everything holds, 1 something does not, 2 there is no such file or no browser.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, FAILED, BAD_INPUT = 0, 1, 2
THEMES = ("light", "dark")
WIDTHS = {"desktop": 1280, "phone": 390}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
LARGEST_MB = 5.0

# What a reader sees of a column; grouped rows aside.
_COLUMN = """([table, column]) => Array.from(document.querySelectorAll('table.sortable')[table].tBodies).map(body =>
  Array.from(body.rows).filter(row => !row.classList.contains('attribute'))
    .map(row => row.cells[column].textContent.trim()))"""
# By table, the place of the first column whose cells are not all alike, and how many columns have a button.
_TABLES = """() => Array.from(document.querySelectorAll('table.sortable')).map(table => {
  const heads = Array.from(table.tHead.rows[0].cells);
  const rows = Array.from(table.tBodies).flatMap(body => Array.from(body.rows))
    .filter(row => !row.classList.contains('attribute'));
  const differing = heads.findIndex((head, place) => head.querySelector('button')
    && new Set(rows.map(row => row.cells[place].textContent.trim())).size > 1);
  return [differing, heads.filter(head => head.querySelector('button')).length];
})"""
_BROKEN = "() => Array.from(document.images).filter(image => !image.complete || !image.naturalWidth).length"
_UNFOLD = "open => document.querySelectorAll('details').forEach(part => { part.open = open; })"
_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Checked:
    """What was found on one page.

    Attributes:
        path: The page.
        problems: A line for each.
        tables: How many sort.
        pictures: How many are loaded.
        files: What was written to look at.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    tables: int = 0
    pictures: int = 0
    files: list[Path] = field(default_factory=list)


def missing() -> str | None:
    """What stands in the way of checking, in words; None where nothing does."""
    for package in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(package) is None:
            return f"there is no {package}: pip install -c constraints.txt '.[browser]'"
    return None if find_chromium() else f"there is no Chromium: looked for {', '.join(BROWSERS)}"


def find_chromium() -> str | None:
    """The browser on the path."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextmanager
def browsing(chromium: str | None = None) -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, so that it starts in a container; it opens nothing but the given files.
        browser = playwright.chromium.launch(executable_path=chromium or find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def check_page(browser: Any, path: Path, output: Path | None = None, themes: Sequence[str] = THEMES) -> Checked:
    """Hold one page against everything."""
    checked = Checked(path)
    size = path.stat().st_size / 1e6
    if size > LARGEST_MB:
        checked.problems.append(f"the file has {size:.1f} MB, more than {LARGEST_MB:g}")
    for theme in themes:
        context = browser.new_context(color_scheme=theme, viewport={"width": WIDTHS["desktop"], "height": 900})
        page = context.new_page()
        page.set_default_timeout(10_000)
        _listen(page, path, checked, theme)
        page.goto(path.resolve().as_uri())
        _look(page, checked, theme)
        _check_access(page, checked, theme)
        if output is not None:
            _picture(page, checked, output, theme)
        if theme == themes[0]:
            _check_script(page, checked)
        context.close()
    return checked


def _listen(page: Any, path: Path, checked: Checked, theme: str) -> None:
    """Note what goes wrong and what leaves the page."""
    own = path.resolve().as_uri()
    page.on("pageerror", lambda error: checked.problems.append(f"{theme}: error: {error}"))
    page.on(
        "console",
        lambda told: (
            checked.problems.append(f"{theme}: console {told.type}: {told.text}")
            if told.type in ("error", "warning")
            else None
        ),
    )

    def request(sent: Any) -> None:
        if sent.url.split("#")[0] != own and not sent.url.startswith("data:"):
            checked.problems.append(f"{theme}: asks for {sent.url}")

    page.on("request", request)


def _look(page: Any, checked: Checked, theme: str) -> None:
    broken, checked.pictures = page.evaluate(_BROKEN), page.evaluate("() => document.images.length")
    if broken:
        checked.problems.append(f"{theme}: {broken} of {checked.pictures} pictures are not loaded")
    if page.locator("h1").count() != 1:
        checked.problems.append(f"{theme}: has {page.locator('h1').count()} headings of the first level, not 1")


def _check_access(page: Any, checked: Checked, theme: str) -> None:
    """axe-core, with everything unfolded: it does not look into what is folded."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(_UNFOLD, True)
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}}).response["violations"]
    for violation in found:
        nodes = violation["nodes"]
        example = nodes[0]["html"][:160]
        checked.problems.append(f"{theme}: {violation['id']}: {violation['help']} ({len(nodes)} times, as {example})")


def _check_script(page: Any, checked: Checked) -> None:
    """What the page's own script does: the theme and the tables."""
    if not page.locator("button.theme").is_visible():
        checked.problems.append("the page's script does not run")
        return
    _check_theme_button(page, checked)
    _check_tables(page, checked)


def _check_theme_button(page: Any, checked: Checked) -> None:
    """The button changes the colours and says what it does next."""
    button = page.locator("button.theme")
    before = page.evaluate("() => getComputedStyle(document.body).backgroundColor"), button.inner_text()
    button.click()
    after = page.evaluate("() => getComputedStyle(document.body).backgroundColor"), button.inner_text()
    if before[0] == after[0] or before[1] == after[1]:
        checked.problems.append(f"the button '{before[1]}' does not change the theme")
    button.click()


def _check_tables(page: Any, checked: Checked) -> None:
    """Every table that can be sorted, is sorted: up by a click, down from the keyboard."""
    page.evaluate(_UNFOLD, True)
    for place, (column, buttons) in enumerate(page.evaluate(_TABLES)):
        table = page.locator("table.sortable").nth(place)
        name = table.locator("caption").inner_text()
        if not buttons:
            checked.problems.append(f"table '{name}' has no button to sort by")
        if column < 0:
            continue
        head = table.locator("thead th").nth(column)
        before = page.evaluate(_COLUMN, [place, column])
        head.locator("button").click()
        up = page.evaluate(_COLUMN, [place, column])
        _expect_sort(checked, name, head, "ascending")
        head.locator("button").focus()
        page.keyboard.press("Enter")
        down = page.evaluate(_COLUMN, [place, column])
        _expect_sort(checked, name, head, "descending")
        if any(sorted(one) != sorted(other) for one, other in zip(before, up, strict=True)):
            checked.problems.append(f"table '{name}' loses rows when it is sorted")
        if up == down:
            checked.problems.append(f"table '{name}' has the same order both ways")
        checked.tables += 1


def _expect_sort(checked: Checked, name: str, head: Any, wanted: str) -> None:
    told = head.get_attribute("aria-sort")
    if told != wanted:
        checked.problems.append(f"table '{name}' is {wanted}, but tells {told}")


def _picture(page: Any, checked: Checked, output: Path, theme: str) -> None:
    """Screenshots at both widths, and once the page on paper."""
    output.mkdir(parents=True, exist_ok=True)
    stem = f"{checked.path.parent.name}_{checked.path.stem}"
    page.evaluate(_UNFOLD, False)
    for name, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        if (over := page.evaluate(_WIDE)) > 0:
            checked.problems.append(f"{theme}: at {width} pixels the page is {over} pixels too wide")
        file = output / f"{stem}_{theme}_{name}.png"
        page.screenshot(path=file, full_page=True)
        checked.files.append(file)
    page.set_viewport_size({"width": WIDTHS["desktop"], "height": 900})
    if theme == THEMES[-1]:
        # From the dark theme: paper is white whatever the screen is.
        file = output / f"{stem}.pdf"
        page.pdf(path=file, format="A4", print_background=True)
        checked.files.append(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path, metavar="report.html")
    parser.add_argument("--output", type=Path, help="where screenshots and PDFs go; none are made without it")
    parser.add_argument("--chromium", help="the browser; one on the path without it")
    given = parser.parse_args(arguments)
    problem = missing() if given.chromium is None else None
    gone = [path for path in given.pages if not path.is_file()]
    if problem or gone:
        print(problem or f"there is no file {gone[0]}", file=sys.stderr)
        return BAD_INPUT
    with browsing(given.chromium) as browser:
        found = [check_page(browser, path, given.output) for path in given.pages]
    for checked in found:
        verdict = f"{len(checked.problems)} problems" if checked.problems else "holds"
        print(f"{checked.path}: {verdict}; {checked.tables} tables sort, {checked.pictures} pictures")
        for line in [*checked.problems, *(f"look at {file}" for file in checked.files)]:
            print(f"  {line}")
    return FAILED if any(checked.problems for checked in found) else OK


if __name__ == "__main__":
    sys.exit(main())
