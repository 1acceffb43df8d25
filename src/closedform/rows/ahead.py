"""Reading ahead: the next rows come from the disk while those before are worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from closedform.engine.threads import one_thread

__all__ = ["read_ahead"]

_Value = TypeVar("_Value")


def read_ahead(reads: Sequence[Callable[[], _Value]]) -> Generator[_Value]:
    """Call functions one after the other, each while the result of the one before is in use.

    One thread calls them all, so they never run at the same time, and never more than one is ahead. Whoever stops
    before the end closes the iterator, which waits for the call that is under way.

    Args:
        reads: The functions.

    Yields:
        What they return, in order; what one raises is raised here.

    Example:
        >>> list(read_ahead([lambda: 1, lambda: 2, lambda: 3]))
        [1, 2, 3]
    """
    if len(reads) < 2:
        yield from (read() for read in reads)
        return

    reader = ThreadPoolExecutor(1, thread_name_prefix="closedform-reading")
    try:
        waiting: Future[_Value] | None = reader.submit(_by_one, reads[0])
        for after in [*reads[1:], None]:
            assert waiting is not None
            value = waiting.result()
            # What was handed out is not held here: there are two results at a time, and no third.
            waiting = None if after is None else reader.submit(_by_one, after)
            yield value
            del value
    finally:
        reader.shutdown(cancel_futures=True)


def _by_one(read: Callable[[], _Value]) -> _Value:
    """Call without more threads: those of torch are for the work on the rows."""
    with one_thread(0, torch.device("cpu")):
        return read()
