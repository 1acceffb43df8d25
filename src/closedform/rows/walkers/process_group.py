"""Every process of a ``torch.distributed`` group reads its own rows, and all of them have the sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, final

import torch
from torch import Tensor, distributed
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.rows.block import Block, Readable
from closedform.rows.fold import Mergeable
from closedform.rows.walkers.in_order import InOrder
from closedform.rows.walkers.walker import AnyFold, Walker
from closedform.words import errors
from closedform.words.errors import ClosedformError, GroupError, InputError

__all__ = ["ProcessGroup"]

_Result = TypeVar("_Result")
AnyPart = TypeVar("AnyPart", bound=Mergeable)
#: Bytes before the state in a message: whether all went well so far.
_HEAD = 8


@final
class ProcessGroup(Walker):
    """Folds travel up a binomial tree of the processes and back down; rows stay where they are.

    States are merged in the order of the ranks, on one process for all, so that every process has the same bits.
    Whatever is raised on one process is raised on all.

    Args:
        group: The group, as ``torch.distributed.new_group`` returns it, or ``torch.distributed.group.WORLD``.

    Attributes:
        rank: Number of this process in the group.
        size: How many processes there are.
        passes: Passes over the rows so far.
        sent: Bytes that all processes together sent for them.
        inner: Who reads the rows of this process.

    Raises:
        InputError: there is no such group, this process is not in it, or its backend cannot serve here.
    """

    def __init__(self, group: Any) -> None:
        if not distributed.is_available():
            raise InputError("group= was given, but this torch was built without torch.distributed.")
        if not distributed.is_initialized():
            raise InputError(
                "group= was given, but torch.distributed is not initialised: start with torchrun and call "
                "torch.distributed.init_process_group first."
            )
        if not isinstance(group, distributed.ProcessGroup):
            if group == distributed.GroupMember.NON_GROUP_MEMBER:
                raise InputError("this process is not a member of group=; call it on the processes of the group alone.")
            raise InputError(
                f"group={group!r} is a {type(group).__name__}; pass torch.distributed.group.WORLD or what new_group() "
                "returned."
            )
        self._group = group
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        self.passes = self.sent = 0
        self.inner: Walker = InOrder()

        backend = str(distributed.get_backend(group))
        on_gpu = backend == "nccl"
        if on_gpu and not torch.cuda.is_available():
            raise InputError("the group has the backend nccl, which needs a GPU, and there is none here; use gloo.")
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    @override
    def each(self, value: _Result) -> list[_Result]:
        found: list[Any] = [None] * self.size
        with self._answering():
            distributed.all_gather_object(found, value, group=self._group)
        return found

    def together(self, make: Callable[[], _Result]) -> _Result:
        """Return what ``make`` returns here; where it fails on any process, the same error is raised on all.

        Args:
            make: Called once, here.

        Raises:
            ClosedformError: it was raised on some process.
        """
        try:
            result, failure = make(), None
        except Exception as error:
            result, failure = None, error
        self._raise_together(failure)
        return result  # type: ignore[return-value]

    def gathered(self, make: Callable[[], _Result]) -> list[_Result]:
        """Return what ``make`` returns on each process, or raise as :meth:`together` does, in one exchange.

        Args:
            make: Called once, here; what it returns is small.

        Raises:
            ClosedformError: it was raised on some process.
        """
        try:
            found: tuple[Any, Any] = None, make()
        except Exception as error:
            found = _told(error), None
        every = self.each(found)
        self._raise_first([failure for failure, _ in every])
        return [value for _, value in every]

    def merge_all(self, part: AnyPart, failure: Exception | None = None) -> AnyPart:
        """Merge the parts of all processes in the order of their ranks, in place, and return what all then have.

        Args:
            part: That of this process, of the same shapes on all.
            failure: What went wrong here, which is then raised on all.

        Raises:
            ClosedformError: something went wrong on some process.
        """
        message = _packed(part.state(), failure is None, self._device)
        failed = self._up_and_down(message, part, part.fresh())
        if failed:
            self._raise_together(failure)
        part.load_state(_unpacked(message, part.state()))
        self.sent += 2 * (self.size - 1) * message.numel()
        return part

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        part, failure = fold.fresh(), None
        try:
            self.inner.walk(table, part)
        except Exception as error:
            failure = error
        fold.merge(self.merge_all(part, failure))
        self.passes += 1
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        def read() -> tuple[Tensor, Tensor, Tensor | None]:
            block = self.inner.gather(table, as_stored=as_stored, unweighted=unweighted)
            return block.X.cpu(), block.Y.cpu(), None if block.weight is None else block.weight.cpu()

        device = table.block(0, 0).X.device
        parts = self.each(self.together(read))
        weights = [weight.to(device) for _, _, weight in parts if weight is not None]
        X, Y = torch.cat([part[0] for part in parts]).to(device), torch.cat([part[1] for part in parts]).to(device)
        return Block(0, X, Y, torch.cat(weights) if weights else None, engine_for(X))

    def _up_and_down(self, message: Tensor, part: Any, other: Any) -> bool:
        """Merge the states of all processes into ``message``, in place; say whether one of them failed."""
        arriving, step = torch.empty_like(message), 1
        with self._answering():
            while step < self.size:
                if self.rank % (2 * step):
                    distributed.send(message, self._global(self.rank - step), group=self._group)
                    break
                if self.rank + step < self.size:
                    distributed.recv(arriving, self._global(self.rank + step), group=self._group)
                    if bool(arriving[0]) and bool(message[0]):
                        other.load_state(_unpacked(arriving, other.state()))
                        part.merge(other)
                        message.copy_(_packed(part.state(), True, self._device))
                        other = part.fresh()
                    else:
                        message[0] = 0
                step *= 2
            distributed.broadcast(message, self._global(0), group=self._group)
        return not bool(message[0])

    def _global(self, rank: int) -> int:
        return distributed.get_global_rank(self._group, rank)

    def _raise_together(self, failure: Exception | None) -> None:
        self._raise_first(self.each(None if failure is None else _told(failure)))

    def _raise_first(self, failures: list[tuple[str, str] | None]) -> None:
        for rank, told in enumerate(failures):
            if told is not None:
                kind = getattr(errors, told[0], None)
                if isinstance(kind, type) and issubclass(kind, InputError | errors.DataTypeError):
                    raise kind(f"rank {rank} of {self.size}: {told[1]}")
                raise GroupError(f"rank {rank} of {self.size}: {told[0]}: {told[1]}")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what torch raises where a process does not answer into an error of the house.

        Raises:
            ClosedformError: it was raised within.
            GroupError: a process died, or did not answer in time.
        """
        try:
            yield
        except ClosedformError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise GroupError(
                f"a process of the group died or did not answer within the group's time-out ({reason}); nothing was "
                "changed here. Look at what the other ranks printed."
            ) from error


def _told(failure: Exception) -> tuple[str, str]:
    """Return what the others are told of a failure."""
    return type(failure).__name__, str(failure)


def _packed(state: tuple[Tensor, ...], well: bool, device: torch.device) -> Tensor:
    """Return tensors as bytes behind a head, on the device that the group sends from."""
    parts = [part.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for part in state]
    head = torch.zeros(_HEAD, dtype=torch.uint8, device="cpu")
    head[0] = int(well)
    return torch.cat([head, *parts]).to(device)


def _unpacked(message: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the tensors of a message, each in the dtype, shape and place of its counterpart."""
    start, found, data = _HEAD, [], message.cpu()
    for part in like:
        stop = start + part.numel() * part.element_size()
        # A copy, so that it is aligned.
        found.append(data[start:stop].clone().view(part.dtype).reshape(part.shape).to(part.device))
        start = stop
    return tuple(found)
