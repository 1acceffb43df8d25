"""What a comparison found: values that print themselves, draw themselves and lay themselves out as a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from typing_extensions import override

from closedform.comparison.layout import methods_table, race_chart
from closedform.comparison.methods import MethodsReport
from closedform.explain.charts import MARKS, MeasuredCurve
from closedform.explain.layout import Shown, facts, optimal_loss, sections, verdict
from closedform.explain.records import DiagnosisRecord
from closedform.report import Document, Section
from closedform.report.charts import Chart
from closedform.report.document import Paragraph
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.numbers import number, plural

__all__ = ["Comparison"]

#: Counted up when a key of ``to_dict()`` changes its meaning or goes; new keys leave it as it is.
SCHEMA_VERSION = 1


@final
@dataclass(frozen=True, repr=False, kw_only=True)
class Comparison(MethodsReport):
    """The closed form beside optimizers that trained the same layer on the same rows.

    Attributes:
        methods: One row per method, the closed form first.
        condition: Condition number of ``[1 | X]`` as the layer sees it (of ``X`` without a bias).
        rank: Its numerical rank, as certified.
        learning_rate_limit: The largest stable step of plain gradient descent on ``MSELoss()``, 2 / lambda_max.
        steps_needed: Steps that gradient descent at 0.9 of that limit needs from zero weights to the goal of the
            diagnosis, a millionth of their excess loss (with a bias, of that of the best constant); infinite if it
            never gets there.
        optimal_loss: The mean squared error at the minimiser.
        excess_floor: An excess loss below this cannot be told from zero in float64.
        rounding_floor: An excess loss below this is rounding of the dtype that was trained in: what is expected near
            the minimiser, or the lowest excess of any method where one is below that.
        dtype: What the optimizers trained in, such as ``float32``.
        n_rows, n_features, n_targets, bias: The layer and its table.
        budget: Seconds shared by all optimizers.
        outcome: How the closed form ended.
        sentence: The cause, with its numbers.
        notes: What was done with the data on the way in.
        diagnosis: What keeps a first-order optimizer from the minimiser, on the same rows and from the same start.
        elapsed: What took how long, training included.
        interrupted: Whether training was stopped by Ctrl-C; the rows hold what was there by then.
    """

    condition: float
    rank: int
    learning_rate_limit: float
    steps_needed: float
    optimal_loss: float
    excess_floor: float
    rounding_floor: float
    n_targets: int
    diagnosis: DiagnosisRecord

    def metrics(self) -> dict[str, float]:
        """Return its numbers as flat floats, for trackers; those of a method as ``method/number``."""
        own = ("condition", "rank", "learning_rate_limit", "steps_needed", "optimal_loss")
        methods = {method.name: method.to_dict() for method in self.methods}
        return flat_floats(
            {"certified": self.outcome.certified} | {name: getattr(self, name) for name in own} | methods
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, infinities as None, as JSON has it."""
        data: dict[str, Any] = plain(
            {
                "schema_version": SCHEMA_VERSION,
                "sentence": self.sentence,
                "outcome": self.outcome.name.lower(),
                "verdict": self.diagnosis.verdict.to_dict(),
                "condition": self.condition,
                "rank": self.rank,
                "learning_rate_limit": self.learning_rate_limit,
                "steps_needed": self.steps_needed,
                "optimal_loss": self.optimal_loss,
                "excess_floor": self.excess_floor,
                "rounding_floor": self.rounding_floor,
                "dtype": self.dtype,
                "n_rows": self.n_rows,
                "n_features": self.n_features,
                "n_targets": self.n_targets,
                "bias": self.bias,
                "budget": self.budget,
                "elapsed": {part.name: part.seconds for part in self.elapsed},
                "interrupted": self.interrupted,
                "notes": self.notes,
            }
        )

        return data | {"methods": [method.to_dict() for method in self.methods]}

    @override
    def chart(self) -> Chart:
        """Return excess loss against seconds as a chart."""
        return race_chart(self.methods, self.excess_floor)

    @override
    def summary(self) -> Document:
        table = methods_table(self.methods, self.excess_floor)
        quiet = (self._caption, *self._footnotes)
        return Document(
            title=self.sentence,
            about=self._caption,
            lead=(Section(self.sentence, (), tone="headline"),),
            sections=(
                Section("", (table,)),
                verdict(self.diagnosis),
                Section("", tuple(Paragraph(text, quiet=True) for text in quiet)),
            ),
        )

    @override
    def page(self) -> Document:
        reached = Section(
            "What each method reached",
            (
                methods_table(self.methods, self.excess_floor),
                *(Paragraph(note, quiet=True) for note in self._footnotes),
                self.chart(),
            ),
            key="methods",
        )
        measured = [
            MeasuredCurve(
                method.name, [point.steps for point in method.curve], [point.excess_loss for point in method.curve]
            )
            for method in self.methods
            if method.curve
        ]

        return Document(
            title=f"{self.sentence.split(':')[0]} · closedform compare",
            about=self.diagnosis.problem.text,
            lead=(
                Section(self.sentence, (Paragraph(self._caption, quiet=True),), tone="headline"),
                reached,
                verdict(self.diagnosis, key="why"),
                facts(self.diagnosis),
            ),
            sections=sections(Shown(self.diagnosis, measured)),
            data={"diagnosis": self.diagnosis.to_dict(), "marks": MARKS, "comparison": self.to_dict()},
        )

    @property
    def _caption(self) -> str:
        layer = self._layer(plural(self.n_targets, "target"))
        return f"{layer}; rank {self.rank}; optimal MSE {optimal_loss(self.diagnosis)}; {self._spent}"

    @property
    def _footnotes(self) -> tuple[str, ...]:
        unique = self.rank == self.n_features + self.bias
        return (
            f"time: {number(sum(part.seconds for part in self.elapsed))} s in all, of which {self._times}.",
            "steps: evaluations of loss and gradient; weights: relative distance to the minimiser.",
            f"excess: training MSE above the optimal one; below {number(self.rounding_floor)} it is rounding of "
            f"{self.dtype}.",
            *(() if unique else ("the minimiser is not unique: the distance is to the one of least norm.",)),
            f"closed form: {self.outcome}.",
            *(f"note: {note}." for note in self.notes),
        )
