"""Rows that are read once, in batches of any size: their triangle, which is solved at any time, merged and saved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from closedform.engine.choice import engine_for
from closedform.engine.tracing import active_tracer, untraced
from closedform.files import open_problem
from closedform.files.formats import import_extra, reading
from closedform.files.writing import write_whole
from closedform.fit.class_labels import labels_note
from closedform.fit.orchestrator import solve_rows
from closedform.fit.request import MethodName, Request, check_bias, check_device
from closedform.fit.solution import Solution
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Rows, as_rows, scan
from closedform.rows.accumulated import Accumulated
from closedform.rows.dask_tables import dask_rows, is_dask
from closedform.rows.tensors import is_plain
from closedform.rows.unnumbered import agreed_names
from closedform.rows.walkers import InOrder
from closedform.words.arguments import whole_number
from closedform.words.errors import InputError, SourceError
from closedform.words.numbers import plural

__all__ = ["Accumulator"]

#: Columns of which nobody has a triangle in memory.
_MOST_COLUMNS = 2**31
#: Rows among which targets that are labels are looked for.
_LOOKED_AT = 4096
#: What a saved file says it is.
_FORMAT = {"format": "closedform.Accumulator", "version": "1"}
#: The entries of a state as a triangle names them; beside them stands whether there is a bias.
_ENTRIES = tuple(Triangle.empty(1, 1).state_dict())


@final
class Accumulator:
    """All that least squares needs to know of rows that come in batches and are not kept.

    Rows are folded into a triangle by Householder QR (Golub 1965; Demmel, Grigori, Hoemmen and Langou 2012), never into
    normal equations, so that as many digits come out as of all rows at once. Small batches are gathered into blocks
    first. Memory is ``columns * (columns + targets)``, whatever the rows; :meth:`merge` joins what was accumulated
    elsewhere.

    Args:
        n_features: Columns of X.
        n_targets: Columns of Y.
        bias: Whether the layer has a bias.
        device: Where the triangle is kept; batches are moved there.

    Attributes:
        n_features: Columns of X.
        n_targets: Columns of Y.
        bias: Whether the layer has a bias.

    Raises:
        InputError: sizes that are not positive whole numbers, a bias that is no boolean, or no device of this machine.

    ``len`` counts the rows of positive weight.

    Example:
        >>> import torch, closedform as cf
        >>> acc = cf.Accumulator(2, 1, bias=True)
        >>> for batch in torch.arange(24.0).square().reshape(4, 3, 2):
        ...     _ = acc.fold(batch, batch.sum(1) + 5)
        >>> print(acc)
        Accumulator: 12 rows, 2 features + bias -> 1 target
        >>> sol = acc.solve()
        >>> sol.weight.round(decimals=9), sol.bias.round(decimals=9)
        (tensor([[1., 1.]], dtype=torch.float64), tensor([5.], dtype=torch.float64))
        >>> print(str(sol.certificate).splitlines()[0].partition("rank")[2])
         3 of 3, of the triangle of 12 rows, read once
    """

    def __init__(
        self, n_features: int, n_targets: int = 1, *, bias: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.n_features = _check_size("n_features", n_features)
        self.n_targets = _check_size("n_targets", n_targets)
        self.bias = check_bias(bias)
        self._sums = Accumulated(self.n_features, self.n_targets, check_device(device))
        self._single: bool | None = None
        self._names: tuple[str, ...] | None = None
        #: The first targets, as they were stored, where there is one for each row: they may be labels. And how many.
        self._first: tuple[Tensor, ...] = ()
        self._seen = 0

    @property
    def triangle(self) -> Triangle:
        """The triangle of all rows so far, with a column of ones where there is a bias."""
        whole = self._sums.whole()
        return whole if self.bias else whole.without_ones()

    def __len__(self) -> int:
        return self._sums.rows

    def __copy__(self) -> Self:
        # What was folded is never written to again, and what waits is copied; the rest is replaced where it changes.
        copied = type(self).__new__(type(self))
        copied.__dict__ = {**self.__dict__, "_sums": copy(self._sums)}
        return copied

    def __str__(self) -> str:
        bias = " + bias" if self.bias else ""
        return (
            f"Accumulator: {len(self):,} {'row' if len(self) == 1 else 'rows'}, "
            f"{plural(self.n_features, 'feature')}{bias} -> {plural(self.n_targets, 'target')}"
        )

    __repr__ = __str__

    @untraced
    def fold(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Add a batch of rows.

        Args:
            X: Features, ``(rows, features)`` or ``(..., features)``, of any size and dtype; all that
                :func:`closedform.solve` takes. No rows at all are allowed here.
            Y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative, ``(rows,)``.

        Returns:
            This accumulator.

        Raises:
            InputError: other columns than before, shapes that do not belong together, or negative weights.
            NonFiniteError: NaN or infinities.
            DataTypeError: data that are not dense real numbers.

        Whatever is raised, nothing of the batch was added.
        """
        if sample_weight is None and self._is_plain(X, Y):
            return self._fold_plain(X, Y)
        if Y is None:
            raise InputError(
                "Y is None; fold takes one batch of features and targets at a time: "
                "for X, Y in batches: accumulator.fold(X, Y)."
            )
        if self._is_empty(X):
            self._check(as_rows(X, Y, sample_weight, empty=True))
            return self
        opened = open_problem(X, Y, sample_weight)
        tables = opened.X, opened.Y, opened.sample_weight
        rows = dask_rows(*tables) if is_dask(opened.X) or is_dask(opened.Y) else as_rows(*tables)
        names = self._check(rows)

        before = self._sums.snapshot()
        try:
            self._read(rows)
        except BaseException:
            self._sums.restore(before)
            raise
        self._names = names
        self._single = rows.single_target and self._single is not False
        if self._seen < _LOOKED_AT and isinstance(rows.walker, InOrder):
            self._look_at(rows.y.read(0, min(_LOOKED_AT, rows.n_rows)).to(rows.y.stored_dtype))
        return self

    @untraced
    def merge(self, other: Accumulator) -> Self:
        """Add the rows that another accumulator has seen; it stays as it is.

        Merging is associative and commutative up to rounding.

        Returns:
            This accumulator.

        Raises:
            InputError: it is of other features or targets, or not of a bias as this one is.
        """
        if not isinstance(other, Accumulator):
            raise InputError(f"other is a {type(other).__name__}; a closedform.Accumulator is needed.")
        if (other.n_features, other.n_targets, other.bias) != (self.n_features, self.n_targets, self.bias):
            raise InputError(f"these do not belong together: {self}; and {other}.")
        names = agreed_names(self._names, other._names, "the other accumulator")
        if not len(other):
            return self

        before = self._sums.snapshot()
        try:
            self._sums.merge(other._sums)
        except BaseException:
            self._sums.restore(before)
            raise
        self._names = names
        if self._seen < _LOOKED_AT:
            self._first, self._seen = self._first + other._first, self._seen + other._seen
        if other._single is not None:
            self._single = other._single and self._single is not False
        return self

    @untraced
    def solve(
        self,
        l2: Any = 0.0,
        *,
        nearest_to: nn.Linear | None = None,
        method: MethodName = "auto",
        rcond: float | None = None,
    ) -> Solution:
        """Return the weights that minimise the squared errors of all rows so far; more can be folded afterwards.

        Args:
            l2: Ridge strength as for :func:`closedform.solve`: one number, or one for each target.
            nearest_to: A layer; where the minimiser is not unique the one nearest to it is returned.
            method: ``"auto"``, or the name of a method to use it alone.
            rcond: Singular values of the column-scaled matrix at or below ``rcond`` times the largest are cut.

        Returns:
            The solution, in float64. Its certificate is of the triangle, which has the same minimiser as the rows.

        Raises:
            InputError: no rows were folded, and as :func:`closedform.solve`.
        """
        if not len(self):
            raise InputError("the accumulator has seen no rows; fold some first.")
        rows = self._sums.to_rows(single_target=bool(self._single))
        if self._first:
            first = torch.cat(self._first)
            note = labels_note(as_rows(torch.zeros_like(first, dtype=torch.float64), first))
            rows = replace(rows, notes=rows.notes if note is None else (*rows.notes, note))
        request = Request.checked(
            rows, bias=self.bias, l2=l2, nearest_to=nearest_to, method=method, rcond=rcond, progress=False
        )
        return solve_rows(rows, request, replace(scan(rows), weight_sum=self.triangle.weight_sum))

    def solve_each(self, strengths: Sequence[float] | Tensor) -> list[Solution]:
        """Return the solution for each of many ridge strengths.

        Args:
            strengths: Ridge strengths, each for all targets.

        Raises:
            InputError: no sequence of strengths, and as :meth:`solve`.

        Example:
            >>> acc = Accumulator(1).fold([[1.0], [1.0]], [2.0, 4.0])
            >>> [round(float(sol.weight), 9) for sol in acc.solve_each([0.0, 1.0])]
            [3.0, 2.0]
        """
        if not isinstance(strengths, Sequence | Tensor | np.ndarray) or isinstance(strengths, str | bytes):
            raise InputError(f"strengths={strengths!r} must be a sequence of ridge strengths.")
        if isinstance(strengths, Tensor | np.ndarray) and strengths.ndim == 0:
            raise InputError(f"strengths={strengths!r} is one number; pass a sequence of ridge strengths.")
        return [self.solve(l2=strength) for strength in strengths]

    def state_dict(self) -> dict[str, Tensor]:
        """Return all there is to save, as tensors whose shapes do not depend on the rows."""
        state = {name: value.clone() for name, value in self._sums.whole().padded().state_dict().items()}
        roundoff = torch.tensor(self._sums.roundoff, dtype=torch.float64, device="cpu")
        single = -1 if self._single is None else int(self._single)
        return {
            **state,
            "bias": torch.tensor(self.bias, device="cpu"),
            "roundoff": roundoff,
            "single_target": torch.tensor(single, dtype=torch.int8, device="cpu"),
            "names": torch.tensor(list(json.dumps(self._names).encode()), dtype=torch.uint8, device="cpu"),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Self:
        """Take over what :meth:`state_dict` returned, in place of all that was folded here.

        Returns:
            This accumulator.

        Raises:
            InputError: it is the state of something else, or of other features, targets or bias; nothing is changed.
        """
        triangle, bias = _checked(state)
        found = triangle.columns - 1, triangle.targets, bias
        if found != (self.n_features, self.n_targets, self.bias):
            raise InputError(
                f"the state is of {plural(found[0], 'feature')} and {plural(found[1], 'target')} with bias={found[2]}, "
                f"but this is an {self}."
            )
        roundoff, (single, names) = _roundoff_in(state), _about(state, self.n_features)
        copies = {name: state[name].to(self._sums.device, copy=True) for name in _ENTRIES}
        self._sums.start(Triangle.from_state_dict(copies).first_rows(triangle.R.shape[0]))
        self._sums.roundoff = roundoff
        self._single, self._names, self._first, self._seen = single, names, (), 0
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a ``.safetensors`` file, whole or not at all: whoever dies meanwhile leaves the old file.

        Args:
            path: Where to write; an existing file is replaced.

        Raises:
            InputError: it is no path, or cannot be written.
            MissingExtraError: safetensors is not installed.
        """
        _check_path(path)
        library = import_extra("safetensors.torch", "safetensors", "saving an accumulator")
        state = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        try:
            write_whole(Path(path).expanduser().resolve(), library.save(state, metadata=_FORMAT))
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{os.fspath(path)}: writing failed ({reason}).") from error

    @staticmethod
    def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Accumulator:
        """Return the accumulator that was saved to a file.

        Args:
            path: The file.
            device: Where its triangle is kept.

        Raises:
            SourceError: there is no such file, or it is damaged.
            InputError: it holds something else, or this is no path.
            MissingExtraError: safetensors is not installed.
        """
        _check_path(path)
        library = import_extra("safetensors.torch", "safetensors", "loading an accumulator")
        errors = import_extra("safetensors", "safetensors", "loading an accumulator")
        file = Path(path).expanduser()
        try:
            data = file.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{os.fspath(path)} cannot be read ({reason}); check the path.") from error
        with reading(file, ".safetensors", errors.SafetensorError, ValueError):
            state = library.load(data)
        triangle, bias = _checked(state)
        loaded = Accumulator(triangle.columns - 1, triangle.targets, bias=bias, device=device)
        return loaded.load_state_dict(state)

    def _is_plain(self, X: Any, Y: Any) -> bool:
        """Whether a batch is two ordinary tables, as most are: finding out what it is would cost more than folding."""
        if not (is_plain(X) and is_plain(Y)) or active_tracer() is not None:
            return False
        if not (X.dim() and Y.dim()):
            return False
        (rows, *features), (targeted, *targets) = X.shape, Y.shape
        n, k = self.n_features, self.n_targets
        shaped = rows == targeted and features == [n] and (targets == [k] or (k == 1 and not targets))
        return shaped and ((X.is_cpu and Y.is_cpu) or (X.device == Y.device and X.device.type != "mps"))

    def _fold_plain(self, X: Tensor, Y: Tensor) -> Self:
        single, before = Y.dim() == 1, self._sums.snapshot()
        try:
            self._sums.add_rows(X, Y.unsqueeze(1) if single else Y)
            self._sums.heed(X.dtype, Y.dtype)
        except BaseException:
            self._sums.restore(before)
            raise
        self._single = single and self._single is not False
        self._look_at(Y)
        return self

    def _look_at(self, Y: Tensor) -> None:
        """Keep the first targets, among which labels are looked for."""
        if self.n_targets == 1 and (room := _LOOKED_AT - self._seen) > 0:
            self._first += (Y[:room].detach().reshape(-1, 1).to("cpu", copy=True),)
            self._seen += min(room, Y.shape[0])

    def _is_empty(self, X: Any) -> bool:
        try:
            shape = getattr(X, "shape", None)
        except RuntimeError:
            return False  # tensors without one shape, which the door refuses by name
        # A lazy collection has a length that is no number yet.
        if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
            return False
        return tuple(shape) == (0, self.n_features)

    def _read(self, rows: Rows) -> None:
        self._sums.heed(rows.x.stored_dtype, rows.y.stored_dtype)
        if not isinstance(rows.walker, InOrder):
            rows.walk(self._sums)
            return
        size, names = self._sums.rows_at_a_time(rows.extent), (rows.feature_names, rows.target_names)
        for start in range(0, rows.n_rows, size):
            stop = min(start + size, rows.n_rows)
            X, Y = rows.x.read(start, stop), rows.y.read(start, stop)
            weight = None if rows.weight is None else rows.weight.read(start, stop).to(torch.float64)
            self._sums.add_block(Block(start, X, Y, weight, engine_for(X)), names)

    def _check(self, rows: Rows) -> tuple[str, ...] | None:
        """Check that a batch has the columns of those before, and return their names.

        Raises:
            InputError: it has others.
        """
        if (rows.n_features, rows.n_targets) != (self.n_features, self.n_targets):
            raise InputError(
                f"the batch has {plural(rows.n_features, 'feature')} and {plural(rows.n_targets, 'target')}, but "
                f"this is an {self}."
            )
        return agreed_names(self._names, rows.feature_names, "this batch")


def _check_path(path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path={path!r} is a {type(path).__name__}; the path of a file is needed.")


def _check_size(name: str, size: Any) -> int:
    value = whole_number(size)
    if value is None or not 1 <= value < _MOST_COLUMNS:
        raise InputError(f"{name}={size!r} must be a whole number of at least 1.")
    return value


def _roundoff_in(state: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return what a state says of how coarsely the rows were stored; the first versions said nothing.

    Raises:
        InputError: it holds something else.
    """
    values = state.get("roundoff", torch.zeros(2, device="cpu"))
    if not isinstance(values, Tensor) or values.shape != (2,) or not bool(((values >= 0) & (values < 1)).all()):
        raise InputError("this is not the state of an Accumulator: its numbers are damaged.")
    features, targets = values.tolist()
    return features, targets


def _about(state: Mapping[str, Tensor], n_features: int) -> tuple[bool | None, tuple[str, ...] | None]:
    """Return whether targets were one-dimensional, and the names of features; the first versions said nothing.

    Raises:
        InputError: it holds something else.
    """
    if "names" not in state and "single_target" not in state:
        return None, None
    try:
        single, names = int(state["single_target"]), json.loads(bytes(state["names"].tolist()))
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        single, names = None, None
    named = isinstance(names, list) and len(names) == n_features and all(isinstance(name, str) for name in names)
    if single not in (-1, 0, 1) or not (names is None or named):
        raise InputError("this is not the state of an Accumulator: what it says of its columns is damaged.")
    return None if single < 0 else bool(single), None if names is None else tuple(names)


def _checked(state: Mapping[str, Tensor]) -> tuple[Triangle, bool]:
    """Return the triangle that a state holds, and whether there is a bias.

    Raises:
        InputError: it holds something else.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"state is a {type(state).__name__}; what Accumulator.state_dict() returned is needed.")
    missing = [name for name in (*_ENTRIES, "bias") if not isinstance(state.get(name), Tensor)]
    if missing:
        raise InputError(f"this is not the state of an Accumulator: it lacks {', '.join(missing)}.")
    try:
        triangle = Triangle.from_state_dict(state)
        bias = bool(state["bias"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"this is not the state of an Accumulator: {error}.") from error

    numbers = (triangle.R, triangle.C, triangle.residual_squares)
    sound = all(part.dtype == torch.float64 and bool(torch.isfinite(part).all()) for part in numbers)
    sound = sound and bool((triangle.residual_squares >= 0).all()) and bool((triangle.R.tril(-1) == 0).all())
    sound = sound and triangle.has_ones and triangle.columns > 1 and triangle.targets > 0
    if not sound or triangle.rows < 0 or not 0 <= triangle.weight_sum < float("inf"):
        raise InputError("this is not the state of an Accumulator: its numbers are damaged.")
    return triangle.first_rows(min(triangle.rows, triangle.columns)), bias
