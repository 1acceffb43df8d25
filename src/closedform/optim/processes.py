"""Several processes that train together: what each of them has seen is folded by all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, distributed

from closedform.numerics.row_hash import hash_rows
from closedform.numerics.triangle import Triangle
from closedform.optim.batch import Batch
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.errors import InputError

__all__ = ["find_peers", "merge_triangles", "share_batches"]


def find_peers(group: Any = None) -> ProcessGroup | None:
    """Return the processes that train together; None where this one is alone.

    Args:
        group: Their group, or None for all that ``torch.distributed`` runs with.

    Example:
        >>> find_peers() is None
        True
    """
    if group is None:
        if not (distributed.is_available() and distributed.is_initialized()):
            return None
        group = distributed.group.WORLD
    peers = ProcessGroup(group)
    return peers if peers.size > 1 else None


@final
@dataclass(frozen=True, eq=False)
class _Seen:
    """What one process has seen since the last step."""

    batches: list[Batch]
    mark: int


def share_batches(peers: ProcessGroup, batches: list[Batch], present: Tensor) -> list[Batch]:
    """Return the batches of all processes, in the order of their ranks, so that all fold the same rows alike.

    Args:
        peers: The processes.
        batches: Those of this one.
        present: What the layer holds, ``(columns, targets)``.

    Raises:
        InputError: the layers differ.
    """
    here = [Batch(b.A.cpu(), b.Y.cpu(), b.weight.cpu(), b.exact) for b in batches]
    every = peers.each(_Seen(here, int(hash_rows(present.cpu(), present.cpu()).sum())))
    for rank, seen in enumerate(every):
        if seen.mark != every[0].mark:
            raise InputError(
                f"the layer of rank {rank} holds other weights than that of rank 0; wrap it in "
                "DistributedDataParallel, or broadcast its parameters, before the first step."
            )
    device = present.device
    return [Batch(b.A.to(device), b.Y.to(device), b.weight.to(device), b.exact) for seen in every for b in seen.batches]


def merge_triangles(peers: ProcessGroup, triangle: Triangle) -> Triangle:
    """Return the triangle of the rows of all processes, merged in the order of their ranks.

    Args:
        peers: The processes.
        triangle: That of this one.
    """
    device = triangle.R.device
    states = peers.each({name: value.cpu() for name, value in triangle.state_dict().items()})
    merged: Triangle | None = None
    for state in states:
        part = Triangle.from_state_dict({name: value.to(device) for name, value in state.items()})
        merged = part if merged is None else merged.merge(part)
    return triangle if merged is None else merged
