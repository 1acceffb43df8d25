"""What a ridge path found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.convex import ConvexSolution
from closedform.fit.solution import Solution
from closedform.report.base import ChartReport
from closedform.report.charts import LEFT, RIGHT, Chart, Mark, Scale, Series, decades
from closedform.report.document import Block, Column, Document, Facts, Notes, Paragraph, Section, Table
from closedform.report.palette import ink_name
from closedform.words.errors import MissingExtraError
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.numbers import number, plural, short

__all__ = ["RidgePath"]

#: Bottom and top of the plot, in user units.
_PLOT = (330.0, 14.0)
#: Height of the drawing, its axis included.
_HEIGHT = 372.0
#: Targets that are drawn, at most.
_DRAWN = 8
#: Targets that a summary has a row for, at most.
_LISTED = 10

#: What the errors are, by how they were found.
_WAYS = {
    "loo": "leave-one-out",
    "gcv": "generalized cross-validation",
    "k-fold": "cross-validation by folds",
}
_LOSSES = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "density": "mean squared error",
    "cross-entropy": "mean cross-entropy",
}


@final
@dataclass(frozen=True, repr=False, eq=False)
class RidgePath(ChartReport):
    """Every ridge strength, what each errs by on rows it has not seen, and the certified fit at the chosen one.

    Attributes:
        strengths: The strengths tried, ``(strengths,)``, in the order given; ascending where the grid was made here.
        errors: Error of each strength and target, ``(strengths, targets)``: by default the mean squared leave-one-out
            residual, weighted by ``sample_weight``.
        standard_errors: Standard errors of those means, ``(strengths, targets)``; nan for GCV, which is no mean, and
            for labels of many classes, which are summed by class and not row by row.
        degrees_of_freedom: Effective number of weights, the bias included, ``(strengths,)``; nan for cross-entropies.
        l2: The strength chosen for each target, ``(targets,)``.
        solution: The certified fit at these strengths.
        select: ``"loo"``, ``"gcv"`` or ``"k-fold"``.
        scoring: What is least at the chosen strengths: ``"mse"``, ``"mae"``, of kernels ``"density"``, of probes
            ``"cross-entropy"``.
        interpolated_rows: Number of rows with leverage 1 as the strength goes to zero.
        notes: What the user should know of the choice.
        seconds: Wall time.
    """

    strengths: Tensor
    errors: Tensor
    standard_errors: Tensor
    degrees_of_freedom: Tensor
    l2: Tensor
    solution: Solution | ConvexSolution
    select: str
    scoring: str
    interpolated_rows: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def best(self) -> Tensor:
        """Place of the chosen strength of each target among the strengths, ``(targets,)``."""
        return (self.strengths.unsqueeze(1) == self.l2).to(torch.int8).argmax(0)

    @property
    def error(self) -> Tensor:
        """Error at the chosen strength of each target, ``(targets,)``."""
        return self.errors.gather(0, self.best.unsqueeze(0)).squeeze(0)

    def metrics(self) -> dict[str, float]:
        """Return means over the targets of what was chosen as flat floats, with those of the solution, for trackers."""
        chosen = {
            "l2": float(self.l2.mean()),
            "left_out_error": float(self.error.mean()),
            "degrees_of_freedom": float(self.degrees_of_freedom[self.best].mean()),
            "seconds": self.seconds,
        }
        return {**self.solution.metrics(), **flat_floats(chosen)}

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON, with what the solution says (not its weights)."""
        return {
            "select": self.select,
            "scoring": self.scoring,
            "strengths": self.strengths.tolist(),
            "errors": plain(self.errors.tolist()),
            "standard_errors": plain(self.standard_errors.tolist()),
            "degrees_of_freedom": plain(self.degrees_of_freedom.tolist()),
            "l2": self.l2.tolist(),
            "error": plain(self.error.tolist()),
            "interpolated_rows": self.interpolated_rows,
            "notes": list(self.notes),
            "seconds": self.seconds,
            "solution": self.solution.to_dict(),
        }

    def to_frame(self) -> Any:
        """Return a pandas frame: a row for each strength and target, and whether it was chosen.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("pandas", "frames", "A frame") from error
        count, targets = self.errors.shape
        best = self.best.cpu()
        places = torch.arange(count, device="cpu").repeat_interleave(targets)
        numbers = torch.arange(targets, device="cpu").repeat(count)
        return pd.DataFrame(
            {
                "strength": self.strengths.cpu()[places].numpy(),
                "target": numbers.numpy(),
                "error": self.errors.cpu().reshape(-1).numpy(),
                "standard_error": self.standard_errors.cpu().reshape(-1).numpy(),
                "degrees_of_freedom": self.degrees_of_freedom.cpu()[places].numpy(),
                "chosen": (places == best[numbers]).numpy(),
            }
        )

    @override
    def chart(self) -> Chart:
        """Return the error against the strength, a line for each target, as a chart."""
        return _path_chart(self)

    def section(self) -> Section:
        """Return the path as a section of a report."""
        return _page_of(self).sections[0]

    @override
    def summary(self) -> Document:
        return _summary_of(self)

    @override
    def page(self) -> Document:
        return _page_of(self)

    __repr__ = ChartReport.__str__


def _path_chart(path: RidgePath) -> Chart:
    """Error against strength, a line for each of the first targets, and the strength of the first one marked."""
    positive = (path.strengths > 0).nonzero().squeeze(1)
    order = positive[path.strengths[positive].argsort()]
    x = path.strengths[order].tolist()
    targets = range(min(path.errors.shape[1], _DRAWN))
    lines = [path.errors[order, target].tolist() for target in targets]
    marks = [Mark(float(value), f"l2 = {short(float(value))}") for value in path.l2[:1] if float(value) > 0]
    return Chart(
        key="ridge-path",
        title=f"Error on rows left out, {_WAYS[path.select]}",
        x_title="ridge strength l2",
        y_title=_LOSSES[path.scoring],
        x=Scale(*decades(x, least=2), LEFT, RIGHT),
        y=Scale(*decades([value for line in lines for value in line]), *_PLOT),
        height=_HEIGHT,
        series=tuple(
            Series(f"target {target}", ink_name(target), x, line) for target, line in zip(targets, lines, strict=True)
        ),
        marks=tuple(marks),
    )


def _table(path: RidgePath, most: int) -> Table:
    best, error = path.best.tolist(), path.error.tolist()
    rows = tuple(
        (
            str(target),
            number(float(path.l2[target])),
            number(error[target]),
            number(float(path.standard_errors[place, target])),
            number(float(path.degrees_of_freedom[place])),
        )
        for target, place in enumerate(best[:most])
    )
    titles = ("target", "l2", _LOSSES[path.scoring], "standard error", "degrees of freedom")
    return Table(tuple(Column(title, numeric=title != "target") for title in titles), rows)


def _blocks(path: RidgePath, most: int) -> tuple[Block, ...]:
    targets = path.errors.shape[1]
    blocks: list[Block] = [_table(path, most)]
    if targets > most:
        blocks.append(Paragraph(f"and {plural(targets - most, 'more target')}", quiet=True))
    if path.notes:
        blocks.append(Notes(path.notes))
    return tuple(blocks)


def _headline(path: RidgePath) -> str:
    values = sorted(set(path.l2.tolist()))
    chosen = short(values[0]) if len(values) == 1 else f"{short(values[0])} to {short(values[-1])}"
    way = _WAYS[path.select] + " predictive density" * (path.scoring == "density")
    return f"l2 = {chosen} by {way}, of {plural(path.strengths.shape[0], 'strength')}"


def _certainty(solution: Solution | ConvexSolution) -> tuple[str, str]:
    if isinstance(solution, ConvexSolution):
        return "relative gap at the choice", number(solution.certificate.relative_gap)
    return "backward error at the choice", number(solution.certificate.backward_error)


def _summary_of(path: RidgePath) -> Document:
    """Return what fits a screen."""
    lead = Section(_headline(path), (Paragraph(str(path.solution.outcome)), *_blocks(path, _LISTED)), tone="headline")
    return Document("Ridge path", _headline(path), (lead,))


def _page_of(path: RidgePath) -> Document:
    """Return all there is to say, with the chart and all numbers."""
    facts = Facts(
        (
            ("strengths", str(path.strengths.shape[0])),
            ("targets", str(path.errors.shape[1])),
            ("errors by", _WAYS[path.select]),
            _certainty(path.solution),
        )
    )
    section = Section("Ridge path", (_path_chart(path), *_blocks(path, path.errors.shape[1])), key="ridge-path")
    lead = Section(_headline(path), (Paragraph(str(path.solution.outcome)), facts), tone="headline")
    return Document("Ridge path", _headline(path), (lead,), (section,), data={"path": path.to_dict()})
