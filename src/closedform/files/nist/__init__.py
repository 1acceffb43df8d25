"""The eleven linear regression sets of NIST's Statistical Reference Datasets, as published (public domain).

They are the usual yardstick of least-squares software: https://www.itl.nist.gov/div898/strd/lls/lls.shtml. The numbers
of Norris, Pontius, Filip and Longley are stored; Wampler's sets and NoInt are made by their formulas.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from closedform.words.errors import SourceError

__all__ = ["NistSet", "nist_sets", "read_nist_sets"]

#: Degree of the polynomial in x; None where the columns are used as they are; then whether there is an intercept.
_DESIGNS: dict[str, tuple[int | None, bool]] = {
    "norris": (1, True),
    "pontius": (2, True),
    "filip": (10, True),
    "longley": (None, True),
    **{f"wampler{i}": (5, True) for i in range(1, 6)},
    "noint1": (None, False),
    "noint2": (None, False),
}


@final
@dataclass(frozen=True)
class NistSet:
    """One regression problem, its numbers exact.

    Attributes:
        name: NIST's name, in small letters.
        x: Predictors as published, one tuple for each row.
        y: Response as published.
        degree: Degree of the polynomial in the only predictor, or None where the predictors are the columns.
        intercept: Whether there is a constant term.
    """

    name: str
    x: tuple[tuple[Fraction, ...], ...]
    y: tuple[Fraction, ...]
    degree: int | None
    intercept: bool

    def decimal(self) -> tuple[list[list[Fraction]], list[Fraction]]:
        """Return design (constant first) and response as NIST means them: decimal numbers, their exact powers."""
        powers = [
            row if self.degree is None else tuple(row[0] ** k for k in range(1, self.degree + 1)) for row in self.x
        ]
        return [[Fraction(1)] * self.intercept + list(row) for row in powers], list(self.y)

    def binary64(self) -> tuple[Tensor, Tensor]:
        """Return design ``(rows, columns)`` (constant first) and response ``(rows,)`` as a user forms them in float64.

        Powers are made by repeated multiplication, each rounded.

        Example:
            >>> X, y = {s.name: s for s in nist_sets()}["filip"].binary64()
            >>> X.shape, y.dtype
            (torch.Size([82, 11]), torch.float64)
        """
        x = torch.tensor([[float(value) for value in row] for row in self.x], dtype=torch.float64, device="cpu")
        columns = list(x.unbind(1)) if self.degree is None else [x[:, 0]]
        while self.degree is not None and len(columns) < self.degree:
            columns.append(columns[-1] * x[:, 0])
        ones = [torch.ones_like(x[:, 0])] if self.intercept else []
        return torch.stack([*ones, *columns], 1), torch.tensor(
            [float(value) for value in self.y], dtype=torch.float64, device="cpu"
        )


def nist_sets() -> tuple[NistSet, ...]:
    """Return the eleven sets.

    Example:
        >>> [s.name for s in nist_sets()][:4]
        ['norris', 'pontius', 'filip', 'longley']
    """
    stored = json.loads(files(__name__).joinpath("sets.json").read_text(encoding="utf-8"))
    tables = _generated()
    for name, table in stored.items():
        tables[name] = [[Fraction(value) for value in column.split()] for column in (table["y"], *table["x"])]
    return tuple(_nist_set(name, tables[name]) for name in _DESIGNS)


def read_nist_sets(folder: str) -> tuple[NistSet, ...]:
    """Return the sets found in a folder as ``NAME.csv`` with a line of titles, then ``y,x`` or ``y,x1,...``.

    Raises:
        SourceError: no such folder, none of the sets in it, or a file that does not hold them.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SourceError(f"{folder}: there is no such folder; name one that holds filip.csv, longley.csv, ...")
    found = []
    for name in _DESIGNS:
        table = path / f"{name}.csv"
        if not table.is_file():
            continue
        try:
            with table.open(newline="", encoding="utf-8") as handle:
                rows = [[Fraction(value) for value in row] for row in list(csv.reader(handle))[1:] if row]
            found.append(_nist_set(name, [list(column) for column in zip(*rows, strict=True)]))
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise SourceError(f"{table}: not a table of decimal numbers, y first ({error}).") from error
    if not found:
        raise SourceError(f"{folder}: none of {', '.join(f'{name}.csv' for name in _DESIGNS)} is there.")
    return tuple(found)


def _nist_set(name: str, columns: list[list[Fraction]]) -> NistSet:
    y, *x = columns
    if not x:
        raise ValueError("one column only")
    degree, intercept = _DESIGNS[name]
    return NistSet(name, tuple(zip(*x, strict=True)), tuple(y), degree, intercept)


def _generated() -> dict[str, list[list[Fraction]]]:
    """Wampler (1970): two quintics without error, and the first with errors of three sizes; NoInt."""
    x = [Fraction(i) for i in range(21)]
    first = [sum((v**k for k in range(6)), Fraction(0)) for v in x]
    second = [sum(((v / 10) ** k for k in range(6)), Fraction(0)) for v in x]
    half = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048]
    error = [*half, 2048, *reversed(half)]
    tables = {"wampler1": [first, x], "wampler2": [second, x]}
    for name, size in (("wampler3", 1), ("wampler4", 100), ("wampler5", 10000)):
        tables[name] = [[y + size * e for y, e in zip(first, error, strict=True)], x]
    tables["noint1"] = [[Fraction(i) for i in range(130, 141)], [Fraction(i) for i in range(60, 71)]]
    tables["noint2"] = [[Fraction(3), Fraction(4), Fraction(4)], [Fraction(4), Fraction(5), Fraction(6)]]
    return tables
