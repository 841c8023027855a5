"""Work behind the rounds: in order, never more than one round late, and nothing of it is lost."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from simulations.behind import Behind


@pytest.mark.parametrize("overlap", [False, True])
def test_work_is_done_in_order_and_all_of_it_at_the_end(overlap: bool) -> None:
    done: list[int] = []
    with Behind(overlap=overlap, threads=1) as behind:
        for number in range(20):
            behind.do(partial(done.append, number))
            assert len(done) >= number
    assert done == list(range(20))


def test_the_caller_goes_on_meanwhile_but_not_for_two_pieces() -> None:
    may_end = threading.Event()
    with Behind(overlap=True, threads=1) as behind:
        behind.do(lambda: may_end.wait(10) and None)
        # Reached while the first piece still waits; a second one would wait for it.
        assert not may_end.is_set()
        may_end.set()
        behind.do(lambda: None)
        behind.wait()


@pytest.mark.parametrize("overlap", [False, True])
def test_what_is_raised_reaches_the_caller(overlap: bool) -> None:
    def fails() -> None:
        raise OSError("no space left")

    def caller() -> None:
        with Behind(overlap=overlap, threads=1) as behind:
            behind.do(fails)
            behind.do(lambda: None)

    with pytest.raises(OSError, match="no space left"):
        caller()


def test_work_in_hand_is_finished_whatever_ends_the_caller() -> None:
    done: list[bool] = []

    def caller() -> None:
        with Behind(overlap=True, threads=1) as behind:
            behind.do(lambda: done.append(True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller()
    assert done == [True]


def test_the_thread_computes_with_as_many_threads_as_the_caller() -> None:
    found: list[int] = []
    with Behind(overlap=True, threads=1) as behind:
        behind.do(lambda: found.append(torch.get_num_threads()))
    assert found == [1]
