"""Several processes that train together: what each of them has seen is folded by all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, final

import torch
from torch import Tensor, distributed
from typing_extensions import override

from closedform.numerics.row_hash import hash_rows
from closedform.numerics.triangle import Triangle
from closedform.optim.arrived import Waiting, combined
from closedform.rows.fold import Mergeable
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.errors import InputError

__all__ = ["find_peers", "merge_triangles", "share_rows"]

#: Roundings in which the shares of targets may differ from process to process.
_SHARE_ROUNDINGS = 16


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
@dataclass(frozen=True)
class _Facts:
    """What the others have to know before rows are exchanged.

    Attributes:
        rows: Rows that will be sent, at most a triangle.
        present: By what the weights of the layer are known.
        settings: What has to be the same on all.
        target_weight: The shares of the targets, or None where no row counts.
        exact: Whether the targets are the user's own.
        mark: By what the rows are known when they come again.
    """

    rows: int
    present: int
    settings: dict[str, float]
    target_weight: list[float] | None
    exact: bool
    mark: int


def share_rows(
    peers: ProcessGroup, make: Callable[[], Waiting], present: Tensor, settings: dict[str, float]
) -> Waiting:
    """Return the rows of all processes, in the order of their ranks, so that all fold the same alike.

    They are sent up a tree of the processes and come back down, as rows where all of them are fewer than the columns,
    and as one triangle else.

    Args:
        peers: The processes.
        make: Returns those of this one.
        present: What the layer holds, ``(columns, targets)``.
        settings: What has to be the same on all.

    Raises:
        InputError: the layers, the settings or the weights of targets differ.
    """
    mine: list[Waiting] = []

    def facts() -> _Facts:
        waiting = make()
        mine.append(waiting)
        weight = None if waiting.target_weight is None else waiting.target_weight.tolist()
        mark = int(hash_rows(present.cpu(), present.cpu()).sum())
        told = {**settings, "steps since the last exchange": float(waiting.steps)}
        return _Facts(waiting.arrived.A.shape[0], mark, told, weight, waiting.exact, waiting.mark)

    every = peers.gathered(facts)
    _check_agreement(every, torch.finfo(present.dtype).eps)
    (waiting,) = mine
    columns, total = present.shape[0], sum(facts.rows for facts in every)
    arrived = waiting.arrived
    if total:
        sent = arrived.compressed().to("cpu").with_room(min(columns, total))
        arrived = peers.merge_all(sent).to(present.device)
    weights = [facts.target_weight for facts in every if facts.target_weight is not None]
    return replace(
        waiting,
        arrived=arrived,
        target_weight=present.new_tensor(weights[0]) if weights else waiting.target_weight,
        exact=all(facts.exact for facts in every),
        mark=combined([facts.mark for facts in every]),
    )


def _check_agreement(every: list[_Facts], rounding: float) -> None:
    """Refuse processes that do not train the same layer alike.

    Raises:
        InputError: with what differs.
    """
    first = every[0]
    weights = [(rank, facts.target_weight) for rank, facts in enumerate(every) if facts.target_weight is not None]
    for rank, facts in enumerate(every):
        if facts.present != first.present:
            raise InputError(
                f"the layer of rank {rank} holds other weights than that of rank 0; wrap it in "
                "DistributedDataParallel, or broadcast its parameters, before the first step."
            )
        for name, value in facts.settings.items():
            if value != first.settings[name]:
                raise InputError(f"{name} is {first.settings[name]:g} on rank 0 and {value:g} on rank {rank}.")
    for rank, weight in weights[1:]:
        apart = max(abs(one - other) for one, other in zip(weight, weights[0][1], strict=True))
        if apart > _SHARE_ROUNDINGS * rounding:
            raise InputError(
                f"the loss weights the targets of rank {rank} differently from those of rank {weights[0][0]}; weights "
                "must be those of rows. Fit such targets by layers of their own."
            )


def merge_triangles(peers: ProcessGroup, triangle: Triangle) -> Triangle:
    """Return the triangle of the rows of all processes, merged in the order of their ranks.

    Args:
        peers: The processes.
        triangle: That of this one.
    """
    return peers.merge_all(_Shared(triangle)).triangle


@final
class _Shared(Mergeable):
    """A triangle on its way through the processes."""

    def __init__(self, triangle: Triangle) -> None:
        self.triangle = triangle

    @override
    def merge(self, other: Self) -> None:
        self.triangle = self.triangle.merge(other.triangle).padded()

    @override
    def fresh(self) -> Self:
        whole = self.triangle
        empty = Triangle.empty(
            whole.columns,
            whole.targets,
            exponents=whole.exponents,
            target_exponents=whole.target_exponents,
            has_ones=whole.has_ones,
            dtype=whole.R.dtype,
            device=whole.R.device,
        )
        return type(self)(empty)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return tuple(self.triangle.padded().state_dict().values())

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.triangle = Triangle.from_state_dict(dict(zip(self.triangle.state_dict(), state, strict=True)))
