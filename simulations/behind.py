"""Work that is done while the next round already goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch


class Behind:
    """Does one piece of work at a time in a thread of its own, in the order in which it is given.

    Whoever gives a second piece waits for the first, so that the work is never more than one round behind. What a piece
    raises is raised by the next call. At the end of the context all work is done, whatever ended it.

    Args:
        overlap: Whether the caller goes on meanwhile. If not, work is done at once, in the caller's thread.
        threads: PyTorch's, for the thread: another number would give other bits.
    """

    def __init__(self, *, overlap: bool, threads: int) -> None:
        self._pool = (
            ThreadPoolExecutor(1, thread_name_prefix="behind", initializer=lambda: torch.set_num_threads(threads))
            if overlap
            else None
        )
        self._pending: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do this next."""
        self.wait()
        if self._pool is None:
            work()
        else:
            self._pending = self._pool.submit(work)

    def wait(self) -> None:
        """Until everything is done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
