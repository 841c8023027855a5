"""What goes on while a run goes on: in a terminal a line that moves with every answer, in a file few lines."""

from __future__ import annotations

import io
import re

from rich.console import Console

from simulations.progress import progress


def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def written(console: Console) -> str:
    """What was drawn, without colours and cursor movements."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_a_log_file_gets_about_ten_lines_whatever_the_number_of_rounds_and_hospitals() -> None:
    console = Console(file=io.StringIO(), width=120)
    with progress(console, rounds=300) as line:
        for i in range(300):
            line.ask(f"round {i}", 1000)
            for _ in range(1000):
                line.answered()
            line.advance(f"round {i}")
    lines = written(console).splitlines()
    assert 9 <= len(lines) <= 11
    assert lines[-1].startswith("[300/300]")


def test_a_terminal_gets_the_round_its_answers_and_the_time_left() -> None:
    console = screen()
    with progress(console, rounds=2) as line:
        line.start(0)
        line.ask("round 1", 3)
        line.answered()
        line.answered()
        line._bar.refresh()  # type: ignore[attr-defined]
        line.answered()
        line.advance("round 1: fine")
        line.ask("round 2", 2)
    text = written(console)
    assert "0/2" in text
    assert "round 1: 2 of 3 answered" in text
    assert "1/2" in text
    assert "round 2: 0 of 2 answered" in text
    assert "left" in text
    assert "round 1: fine" in text


def test_the_bar_moves_with_every_answer_and_rounds_done_before_are_no_measure_of_speed() -> None:
    with progress(screen(), rounds=4) as line:
        bar = line._bar  # type: ignore[attr-defined]
        now = 100.0
        bar.get_time = lambda: now
        line.start(2)
        (task,) = bar.tasks
        assert task.completed == 2
        assert task.time_remaining is None
        line.ask("round 3", 4)
        for _ in range(3):
            now += 60
            line.answered()
        assert task.completed == 2.75
        # A quarter of a round a minute, and five quarters to go.
        assert task.time_remaining == 300
        line.advance("round 3")
        assert task.completed == 3


def test_a_thousand_answers_are_not_a_thousand_drawings() -> None:
    console = screen()
    with progress(console, rounds=1) as line:
        line.ask("round 1", 1000)
        for _ in range(1000):
            line.answered()
    assert written(console).count("of 1000 answered") < 100


def test_what_is_told_stays_on_one_line_in_a_terminal_and_in_a_file() -> None:
    told = "round 1: [bold]odd failed (exception): " + "a long reason " * 20
    for console in (screen(), Console(file=io.StringIO(), width=80)):
        with progress(console, rounds=1) as line:
            line.tell(told)
        assert told in written(console)


def test_a_run_that_goes_on_says_how_much_was_done_before() -> None:
    console = Console(file=io.StringIO(), width=120)
    with progress(console, rounds=4) as line:
        line.start(2)
        line.advance("round 3")
    assert written(console).splitlines() == [
        "training, after 2 of 4 rounds that were done before",
        "[3/4] round 3",
    ]
