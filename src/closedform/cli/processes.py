"""A command that torchrun started several times: each process reads its share of the rows, the first one speaks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, final

import typer
from typing_extensions import override

from closedform.words.errors import ClosedformError, GroupError

if TYPE_CHECKING:
    from closedform.rows.walkers.process_group import ProcessGroup

__all__ = ["Job", "joined_job"]

_Result = TypeVar("_Result")
#: What torchrun tells each process it starts, and what ``torch.distributed`` needs to join them.
_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Job(ABC):
    """The processes that run this command together.

    Attributes:
        rank: Number of this one.
        size: How many there are.
        group: Their group of ``torch.distributed``, or None for one process.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def neighbours(self) -> int:
        """How many of them share this machine, and so its memory."""
        return 1

    @abstractmethod
    def together(self, make: Callable[[], _Result]) -> _Result:
        """Return what ``make`` returns here; where it fails on any process, the same error is raised on all."""


@final
class _Alone(Job):
    """One process."""

    @override
    def together(self, make: Callable[[], _Result]) -> _Result:
        return make()


@final
class _Torchrun(Job):
    """Several, as torchrun starts them."""

    def __init__(self, peers: ProcessGroup, group: Any) -> None:
        self._peers = peers
        self.rank, self.size, self.group = peers.rank, peers.size, group

    @property
    @override
    def neighbours(self) -> int:
        told = os.environ.get("LOCAL_WORLD_SIZE", "1")
        return int(told) if told.isdigit() and int(told) else 1

    @override
    def together(self, make: Callable[[], _Result]) -> _Result:
        return self._peers.together(make)


@contextmanager
def joined_job() -> Iterator[Job]:
    """Join the processes that torchrun started, and part from them at the end; alone where it started none.

    What fails, fails on all: the first process says why, and the others end with its status in silence.

    Yields:
        The job.

    Raises:
        ClosedformError: something failed, on the first process.
        Exit: something failed, on another one; or the command ends.
    """  # raised by what is done inside
    size = os.environ.get("WORLD_SIZE", "1")
    if not (all(name in os.environ for name in _TOLD) and size.isdigit() and int(size) > 1):
        yield _Alone()
        return

    from torch import distributed

    from closedform.rows.walkers.process_group import ProcessGroup

    # A command of one process that was called in one of several has not made the group.
    made = not distributed.is_initialized()
    if made:
        _join()
    try:
        group = distributed.group.WORLD
        job = _Torchrun(ProcessGroup(group), group)
        yield job
    except ClosedformError:
        if distributed.get_rank():
            raise typer.Exit(2) from None
        raise
    finally:
        if made:
            distributed.destroy_process_group()


def _join() -> None:
    """Meet the other processes.

    Raises:
        GroupError: they did not come.
    """
    from torch import distributed

    try:
        distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GroupError(f"the processes that torchrun started did not all come together ({reason}).") from error
