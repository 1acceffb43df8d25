"""The search for the best strength of each target: errors of a grid, extended where the best stands at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.path.folded import FoldedTable
from closedform.fit.path.folds import fold_errors
from closedform.fit.path.generalized import generalized_errors
from closedform.fit.path.label_errors import LabelErrors, WeightBasis
from closedform.fit.path.labels import Coding
from closedform.fit.path.leave_one_out import ErrorSums, LeftOut
from closedform.fit.path.strengths import default_grid, further
from closedform.fit.path.table import PathTable
from closedform.numerics.triangle import Triangle
from closedform.rows import OneHotRows, labelled
from closedform.words.numbers import plural, short

__all__ = ["Found", "Search", "Selection"]

#: Rows in the coordinates of an explicit basis that are taken at a time.
_ROWS = 1024
#: Classes from which sums over them are cheaper than residuals of each row.
_CLASSES = 16
#: Times that a grid is extended at each end, at most.
_EXTENSIONS = 3


@final
@dataclass(frozen=True, eq=False)
class Selection:
    """How errors are found and what is chosen by them.

    Attributes:
        name: ``"loo"``, ``"gcv"`` or ``"k-fold"``.
        folds: The fold of each row, ``(rows,)``, or None.
        per_target: Whether each target has a strength of its own.
        scoring: ``"mse"``, ``"mae"`` or ``"density"``.
        by_number: Whether the folds are of certain rows; else any rows in these numbers will do.
    """

    name: str
    folds: Tensor | None
    per_target: bool
    scoring: str
    by_number: bool = False


@final
@dataclass(frozen=True, eq=False)
class Found:
    """What a search found; the fields are those of a ridge path."""

    strengths: Tensor
    errors: Tensor
    standard_errors: Tensor
    degrees_of_freedom: Tensor
    l2: Tensor
    interpolated: int
    notes: tuple[str, ...]


@final
class Search:
    """Finds errors, strength by strength, and chooses.

    Args:
        table: The rows.
        selection: How.
    """

    def __init__(self, table: PathTable | FoldedTable, selection: Selection) -> None:
        self._table, self._selection = table, selection
        self._triangles: list[Triangle] | None = None
        self._interpolated = 0
        self._named: tuple[int, ...] = ()
        self._notes: list[str] = []

    def run(self, strengths: Tensor | None) -> Found:
        """Return the errors of the strengths, or of a grid from the spectrum, and the choice."""
        device = self._table.device
        if strengths is not None:
            strengths = strengths.to(device)
            return self._found(strengths, *self._errors(strengths), given=True)

        strengths = default_grid(self._table.basis(None)).to(device)
        errors, deviations, criterion = self._errors(strengths)
        added = 0
        for up in (False, True):
            for _ in range(_EXTENSIONS):
                end = strengths.shape[0] - 1 if up else 0
                if not bool((self._best(strengths, criterion) == end).any()):
                    break
                more = further(self._table.basis(None), strengths, up=up)
                if more is None:
                    break
                more = more.to(device)
                added += more.shape[0]
                pairs = zip((strengths, errors, deviations, criterion), (more, *self._errors(more)), strict=True)
                strengths, errors, deviations, criterion = (
                    torch.cat([one, other] if up else [other, one]) for one, other in pairs
                )
        if added:
            self._notes.append(
                f"the best strength was at an end of the grid, which was extended by {plural(added, 'strength')}"
            )
        return self._found(strengths, errors, deviations, criterion, given=False)

    def _found(self, strengths: Tensor, errors: Tensor, deviations: Tensor, criterion: Tensor, *, given: bool) -> Found:
        best = self._best(strengths, criterion)
        chosen = strengths[best]
        self._say_ends(strengths, chosen, given)

        if self._interpolated:
            named = ", ".join(map(str, self._named))
            more = ", ..." if self._interpolated > len(self._named) else ""
            what = "every row" if self._interpolated == self._table.positive_rows else f"row {named}{more}"
            self._notes.append(
                f"{plural(self._interpolated, 'row')} of leverage 1 without a ridge ({what}): where the strength "
                "leaves nothing of a row, its residual is the limit, which is that of the fit of least norm without it"
            )

        return Found(
            strengths=strengths,
            errors=errors,
            standard_errors=deviations,
            degrees_of_freedom=self._table.basis(float(strengths.min())).degrees_of_freedom(strengths),
            l2=chosen.expand(errors.shape[1]) if chosen.ndim == 0 else chosen,
            interpolated=self._interpolated,
            notes=tuple(self._notes),
        )

    def _best(self, strengths: Tensor, criterion: Tensor) -> Tensor:
        """Return the place of the best strength of each target, ``(targets,)``; of equal ones the largest is best."""
        values = criterion
        if not self._selection.per_target:
            # Densities of targets multiply, errors add up.
            shared = criterion.log() if self._selection.scoring == "density" else criterion
            values = shared.mean(1, keepdim=True)
        values = torch.where(torch.isnan(values), torch.inf, values)
        order = strengths.argsort(descending=True, stable=True)
        return order[values[order].argmin(0)].expand(criterion.shape[1])

    def _say_ends(self, strengths: Tensor, chosen: Tensor, given: bool) -> None:
        if not bool(strengths.min() < strengths.max()):
            return
        for value, word, where in ((strengths.min(), "smallest", "lower"), (strengths.max(), "largest", "higher")):
            count = int((chosen == value).sum())
            if not count or float(value) == 0:
                continue
            advice = f"add {where} ones" if given else "beyond it nothing changes but rounding"
            who = "" if chosen.shape[0] == 1 else f" for {plural(count, 'target')}"
            self._notes.append(f"the best is the {word} strength, {short(float(value))}{who}: {advice}")

    def _errors(self, strengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return errors, their standard errors and what is least at the best strength, ``(strengths, targets)`` each.

        Equal strengths are tried once.
        """
        distinct, places = torch.unique(strengths, return_inverse=True)
        if self._selection.name == "loo":
            errors, deviations, criterion = self._left_out(distinct)
            return errors[places], deviations[places], criterion[places]
        if self._selection.name == "gcv":
            errors = generalized_errors(self._table.basis(float(distinct.min())), distinct)
            deviations = torch.full_like(errors, torch.nan)
        else:
            errors, deviations = fold_errors(self._folds(), self._table.exponent, distinct)
        return errors[places], deviations[places], errors[places]

    def _left_out(self, strengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table, absolute = self._rows, self._selection.scoring == "mae"
        basis = table.basis(float(strengths.min()))
        left_out = LeftOut(basis, strengths)
        found = self._by_classes(left_out) if isinstance(table.rows.y, OneHotRows) and not absolute else None
        if found is not None:
            return *found, found[0]
        if basis.U is None:
            sums = table.rows.walk(ErrorSums(left_out, table.centring_of(basis), absolute=absolute))
            self._add_apart(sums, strengths)

        else:
            density = self._selection.scoring == "density"
            sums = ErrorSums(left_out, None, absolute=absolute, density=density)
            (_, U, B), numbers = table.coordinates(basis), table.numbers
            fitted, E = table.without_each(left_out)
            for start in range(0, U.shape[0], _ROWS):
                part = slice(start, start + _ROWS)
                weight = None if table.weight is None else table.weight[part]
                here = (start <= fitted) & (fitted < start + _ROWS)
                known = (fitted[here] - start, E[:, :, here])
                sums.add_rows(U[part], B[part], weight, 0, numbers[part], among=part, known=known)

        result = sums.result()
        self._interpolated, self._named = result.interpolated, result.named
        criterion = result.errors if result.density is None else result.density
        return result.errors, result.standard_errors, criterion

    def _add_apart(self, sums: ErrorSums, strengths: Tensor) -> None:
        """Add the rows of which too little is left where their digits are not lost."""
        numbers = sums.doubtful
        if not numbers.shape[0]:
            return
        held = self._rows.held(numbers)
        for rows, E, interpolated in held.residuals(strengths):
            sums.add_residuals(E, None if held.weight is None else held.weight[rows], numbers[rows][interpolated.cpu()])

    def _by_classes(self, left_out: LeftOut) -> tuple[Tensor, Tensor] | None:
        """Return the errors of labels by sums over the classes; None where rows have to be taken one by one."""
        table, labels, basis = self._rows, self._rows.rows.y, left_out.basis
        if basis.U is not None or not basis.rank or not isinstance(labels, OneHotRows) or labels.shape[1] < _CLASSES:
            return None
        centring = table.centring_of(basis)
        coding, functions = Coding.of(labels, centring), WeightBasis.of(basis, left_out)
        for double in (False, True):
            fold = LabelErrors(left_out, centring, coding, functions, double=double)
            sums = labelled(table.rows, labels).walk(fold)
            self._add_apart(sums.apart, left_out.strengths)
            errors, cancelled = sums.errors()
            if not cancelled:
                apart = sums.apart.result()
                self._interpolated, self._named = apart.interpolated, apart.named
                return errors, torch.full_like(errors, torch.nan)
        return None

    @property
    def _rows(self) -> PathTable:
        assert isinstance(self._table, PathTable)
        return self._table

    def _folds(self) -> list[Triangle]:
        if self._triangles is None:
            selection = self._selection
            assert selection.folds is not None
            self._triangles = self._table.fold_triangles(selection.folds, by_number=selection.by_number)
        return self._triangles
