"""Files that are there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hbdp_fed.whole_files import whole, write_whole


def test_a_file_is_replaced_by_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_whole(path, "après")
    assert path.read_text(encoding="utf-8") == "après"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shared", [False, True])
def test_until_the_block_is_done_readers_see_what_was_there(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with whole(path, shared=shared) as unfinished:
        unfinished.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("problem", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, shared: bool, problem: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def begin() -> None:
        with whole(path, shared=shared) as unfinished:
            unfinished.write_text("half")
            raise problem

    with pytest.raises(problem):
        begin()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_is_taken_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    program = f"""
        import os, signal
        from pathlib import Path
        from hbdp_fed.whole_files import whole
        with whole(Path({str(path)!r})) as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode < 0
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    write_whole(path, "after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_the_same_time_have_files_of_their_own_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    program = f"""
        from pathlib import Path
        from hbdp_fed.whole_files import whole
        with whole(Path({str(path)!r}), shared=True) as unfinished:
            unfinished.write_text("theirs")
    """
    with whole(path, shared=True) as unfinished:
        unfinished.write_text("mine")
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
        assert path.read_text() == "theirs"
        assert unfinished.read_text() == "mine"
    assert path.read_text() == "mine"
