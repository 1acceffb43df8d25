"""Whether this process is one of several that train together."""

from __future__ import annotations

from torch import distributed

from closedform.words.errors import InputError

__all__ = ["refuse_several_processes"]


def refuse_several_processes() -> None:
    """Refuse to serve one of several ranks: each would fold its own rows only, and the ranks would end apart.

    Raises:
        InputError: ``torch.distributed`` runs with more than one process.

    Example:
        >>> refuse_several_processes()  # alone
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    size = distributed.get_world_size()
    if size > 1:
        raise InputError(
            f"this is one of {size} processes (torch.distributed, DistributedDataParallel): each rank sees its own "
            "rows only, and DDP averages gradients, not rows, so the ranks would silently end with different weights. "
            "Gather what reaches the layer and fit it in one process (cf.fit_, fit_head_), or give the layer to "
            "another optimizer under DDP."
        )
