"""What the user said, and what the objects held that were passed: read and copied at the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.explain.precision import Precision
from closedform.explain.readers.criteria import CriterionReading, Pairing, broadcasts
from closedform.explain.readers.models import ModelReading
from closedform.explain.readers.optimizers import OptimizerReading
from closedform.explain.readers.schedules import Schedule
from closedform.fit.kernels import looks_like_kernel
from closedform.rows import Rows

__all__ = ["GOAL", "PATIENCE", "Command", "Setting", "Table", "describe"]

#: Share of the excess loss that may be left, where the user names none.
GOAL = 1e-6
#: Steps that count as given where the user names none: any of the optimizers makes them in a minute or so.
PATIENCE = 100_000


@final
@dataclass(frozen=True)
class Table:
    """What is kept of the table besides what its rows say: nothing of the rows themselves.

    Attributes:
        n_rows, n_features, n_targets: Its size.
        dtype: What X is held in (float64 where it holds integers).
        device: Where X lies.
        weighted: Whether rows have weights of their own.
        notes: What was done on the way in that the user should know.
        kind: ``tensor`` where X is a torch tensor as the user holds it, else ``other``.
        kernel: Whether X is a kernel matrix between the rows, by its values.
    """

    n_rows: int
    n_features: int
    n_targets: int
    dtype: torch.dtype
    device: torch.device
    weighted: bool
    notes: tuple[str, ...]
    kind: str
    kernel: bool = False


def describe(rows: Rows, given: Any, *, bias: bool) -> Table:
    """Return what is kept of a table.

    Args:
        rows: The table.
        given: X as the user passed it.
        bias: Whether the layer has a bias, which no kernel ridge has.
    """
    return Table(
        n_rows=rows.n_rows,
        n_features=rows.n_features,
        n_targets=rows.n_targets,
        dtype=rows.dtype,
        device=rows.device,
        weighted=rows.weight is not None,
        notes=rows.notes,
        kind="tensor" if isinstance(given, Tensor) else "other",
        kernel=not bias and looks_like_kernel(rows),
    )


@final
@dataclass(frozen=True)
class Command:
    """The command line that asked, for remedies that are commands.

    Attributes:
        source: The file and what names its tables, as typed: ``data.h5 --x features --y targets``.
    """

    source: str


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """What the user trains with.

    Attributes:
        table: Sizes and kinds of the table.
        bias, l2: The layer's bias, the ridge strength.
        goal: Share of the excess loss of zero weights (with a bias: of the best constant) that may be left.
        steps: Steps that the run has, or None.
        batch_size: Rows in a batch, or None for the full batch.
        model, optimizer, criterion, schedule: What was read of the user's objects, or None.
        history: Losses the user recorded, float64, or None.
        names: Names of the features, or None.
        pairing: Shapes of the model's output and of Y as the criterion gets them.
        precision: The arithmetic that is trained in.
        device: Where the run computes.
        command: The command line that asked, or None for Python.
    """

    table: Table
    bias: bool
    l2: float
    goal: float
    steps: int | None
    batch_size: int | None
    model: ModelReading | None
    optimizer: OptimizerReading | None
    criterion: CriterionReading | None
    schedule: Schedule | None
    history: Tensor | None
    names: Sequence[str] | None
    pairing: Pairing
    precision: Precision
    device: torch.device
    command: Command | None = None

    @property
    def patience(self) -> int:
        """Steps that the run has, or what counts as patient."""
        return PATIENCE if self.steps is None else self.steps

    @property
    def patience_text(self) -> str:
        """The same in words."""
        assumed = "" if self.steps is not None else " (assumed, none were given)"
        return f"{self.patience:,} {'step' if self.patience == 1 else 'steps'}{assumed}"

    @property
    def full_batch(self) -> bool:
        """Whether every step sees all rows."""
        return self.batch_size is None or self.batch_size >= self.table.n_rows

    @property
    def squared(self) -> bool:
        """Whether the user's loss is a multiple of the mean squared error, as far as is known."""
        return self.criterion is None or self.criterion.kind == "squared"

    @property
    def loss_factor(self) -> float:
        """What ``MSELoss()`` is multiplied by in the user's loss; its size, where the loss is negative."""
        if self.criterion is None or self.criterion.kind != "squared":
            return 1.0
        return abs(self.criterion.factor)

    @property
    def batch_factor(self) -> float:
        """What the mean squared error of a batch is multiplied by in the user's loss."""
        # A loss that sums grows with the batch, not with the table.
        if self.criterion is None or not self.criterion.summed or self.batch_size is None:
            return self.loss_factor
        return self.loss_factor * self.batch_size / self.table.n_rows

    @property
    def climbs(self) -> bool:
        """Whether training makes the squared error larger: ``maximize=True``, or a loss of the wrong sign, not both."""
        negative = self.criterion is not None and self.criterion.kind == "squared" and self.criterion.factor < 0
        return negative != (self.optimizer is not None and self.optimizer.maximizes)

    @property
    def broadcasts(self) -> bool:
        """Whether the user's loss compares every output with every target."""
        if self.model is None or self.table.n_rows == 1:
            return False
        if self.criterion is not None:
            return self.criterion.broadcasts
        return broadcasts(self.pairing, self.table.n_rows)

    @property
    def start(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias the run starts from, in float64: those of the model, or zeros."""
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.table.device}
        if self.model is not None and self.model.finite:
            bias = None if self.model.bias is None else self.model.bias.to(**options)
            return self.model.weight.to(**options), bias
        weight = torch.zeros(self.table.n_targets, self.table.n_features, **options)
        return weight, torch.zeros(self.table.n_targets, **options) if self.bias else None

    @property
    def start_matrix(self) -> Tensor:
        """The same as one matrix, the bias first, ``(columns, targets)``."""
        weight, bias = self.start
        return weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])
