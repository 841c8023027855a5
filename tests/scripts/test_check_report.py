"""Reports in a real browser: they hold, and what would not hold is found. Skipped where there is no browser."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbdp_fed.audit import as_png
from hbdp_fed.report import render_plan_report, render_report, render_sweep_report, report_figures
from tests.report.examples import plan, recommendation, sweep
from tests.report.test_pages import EVIL, evil_run
from tests.report.test_run_report import full

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_report.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_report_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHECK = load()
PROBLEM = CHECK.missing()
needs_browser = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with CHECK.browsing() as found:
        yield found


def picture() -> bytes:
    png = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(png, format="PNG")
    return png.getvalue()


def run_page() -> str:
    found = full()
    drawn = {name: as_png(figure) for name, figure in report_figures(found).items()}
    return render_report(
        found,
        history=[{"round": 1, "mcc": 0.5, "ece": 0.1}, {"round": 2, "mcc": 0.6, "ece": 0.1}],
        reconstructions={"imprint_gradient": picture()},
        pictures=drawn,
        settings={"eps": 8.0, "training": {"rounds": 2}},
        environment={"python": "3.11.7"},
    )


def page_of(kind: str) -> str:
    if kind == "run":
        return run_page()
    if kind == "plan":
        return render_plan_report(plan(advice=recommendation("undecided")))
    return render_sweep_report(sweep(), recommendation=recommendation(), grids={"imprint_gradient": picture()})


@needs_browser
@pytest.mark.parametrize("kind", ["run", "sweep", "plan"])
def test_a_report_holds_in_a_browser(browser: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(kind), encoding="utf-8")
    checked = CHECK.check_page(browser, path, tmp_path / "shots")
    assert not checked.problems
    assert checked.tables >= 3
    assert len(checked.files) == 5
    assert all(file.stat().st_size > 5_000 for file in checked.files)


@needs_browser
def test_a_hospital_that_is_called_like_a_script_is_shown_as_text(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(evil_run()), encoding="utf-8")
    page = browser.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    assert not dialogs
    assert EVIL in page.locator("main").inner_text()


@needs_browser
@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("</main>", '<img alt="spy" src="http://127.0.0.1:9/spy.png"></main>', "console"),
        ("default-src 'none'; img-src data:", "default-src 'none'; img-src http: data:", ""),
        ('lang="en"', "", "html-has-lang"),
        ("--soft: #566270", "--soft: #d8dde2", "color-contrast"),
        ("</main>", "<input></main>", "label"),
        ("keyed.forEach(function (one) { body.appendChild(one.row); });", "", "script does not run"),
        ("<h1>", "<h1>another</h1><h1>", "headings of the first level"),
    ],
    ids=[
        "a picture from elsewhere",
        "allowed pictures",
        "no language",
        "pale",
        "no label",
        "other script",
        "two titles",
    ],
)
def test_what_does_not_hold_is_found(browser: Any, tmp_path: Path, old: str, new: str, found: str) -> None:
    page = page_of("plan")
    assert old in page
    path = tmp_path / "report.html"
    path.write_text(page.replace(old, new, 1), encoding="utf-8")
    if not found:
        # A policy that lets pictures in still does not ask for any.
        assert not CHECK.check_page(browser, path, themes=("light",)).problems
        return
    assert any(found in problem for problem in CHECK.check_page(browser, path, themes=("light",)).problems)


def test_a_missing_file_or_browser_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CHECK.main([str(tmp_path / "none.html")]) == CHECK.BAD_INPUT
    assert capsys.readouterr().err
