"""What a comparison by a criterion found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from typing_extensions import override

from closedform.comparison.layout import methods_table, race_chart
from closedform.comparison.methods import MethodResult, MethodsReport
from closedform.explain.setting import GOAL
from closedform.fit.convex import ConvexSolution, Curvature, GapCertificate
from closedform.report import Document, Section
from closedform.report.charts import Chart
from closedform.report.document import Paragraph
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.numbers import number, plural, short
from closedform.words.outcome import Outcome

__all__ = ["CriterionComparison", "sentence_of"]

#: Counted up when a key of ``to_dict()`` changes its meaning or goes; new keys leave it as it is.
_SCHEMA_VERSION = 1
#: What the fields of a method are called where the loss is not squared error.
_NAMES = {"train_mse": "train_loss", "test_mae": "test_loss"}


def sentence_of(
    exact: ConvexSolution, bent: Curvature | None, excess_at_zero: float, methods: Sequence[MethodResult]
) -> str:
    """Return what came out, in one or two sentences.

    Args:
        exact: The minimiser.
        bent: How the loss bends there, or None.
        excess_at_zero: Excess loss of zero weights, which ``GOAL`` is relative to.
        methods: All rows, that of the minimiser first.
    """
    if not exact.outcome.certified:
        return f"{exact.criterion}: no optimizer was run, as there is no minimum to measure against: {exact.sentence}."
    if exact.sharp:
        opening = f"{exact.criterion} has kinks, so that no constant step of SGD comes to rest at its minimum"
    elif bent is None:
        opening = f"{exact.criterion} is {short(exact.certificate.loss)} at its minimum"
    else:
        opening = (
            f"Condition {short(bent.condition)} of the Hessian of {exact.criterion} at its minimum: "
            f"SGD is stable there below lr {short(bent.learning_rate_limit)}"
        )

    trained = [method for method in methods if method.curve]
    if not trained:
        return f"{opening}."
    arrived = [method.name for method in trained if method.excess_loss <= GOAL * excess_at_zero]
    who = f" ({', '.join(arrived)})" if arrived else ""
    return (
        f"{opening}. {len(arrived) or 'None'} of {plural(len(trained), 'optimizer')}{who} came within {short(GOAL)} "
        "of the excess of zero weights."
    )


@final
@dataclass(frozen=True, repr=False, kw_only=True)
class CriterionComparison(MethodsReport):
    """The exact minimiser of a criterion beside optimizers that trained the same layer on the same rows.

    Attributes:
        methods: One row per method, the exact minimiser first. Their ``train_loss`` is the criterion with its penalty,
            and ``excess_loss`` a proven bound: measured against the minimiser, with the gap of the minimiser added.
        criterion: Name of the criterion.
        l2: The ridge strength.
        certificate: What is proven of the minimiser.
        condition: Condition number of the Hessian there, as the layer sees it; nan where there is none.
        learning_rate_limit: The largest stable step of plain gradient descent near the minimiser, 2 / lambda_max; nan
            where there is none.
        dtype: What the optimizers trained in, such as ``float32``.
        n_rows: Rows.
        n_features: Features.
        n_outputs: Outputs of the layer.
        bias: Whether it has a bias.
        budget: Seconds shared by all optimizers.
        outcome: How the exact fit ended.
        sentence: What came out.
        elapsed: What took how long.
        notes: What was done with the data on the way in.
        interrupted: Whether training was stopped by Ctrl-C; the rows hold what was there by then.
    """

    criterion: str
    l2: float
    certificate: GapCertificate
    condition: float
    learning_rate_limit: float
    n_outputs: int

    def metrics(self) -> dict[str, float]:
        """Return its numbers as flat floats, for trackers; those of a method as ``method/number``."""
        own = {name: getattr(self, name) for name in ("condition", "learning_rate_limit", "l2")}
        methods = {method.name: _renamed(method.to_dict()) for method in self.methods}
        return flat_floats({"certified": self.outcome.certified} | own | methods)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, what is not finite as None, as JSON has it."""
        names = ("sentence", "criterion", "l2", "condition", "learning_rate_limit", "dtype", "n_rows", "n_features")
        more = ("n_outputs", "bias", "budget", "interrupted", "notes")
        data: dict[str, Any] = plain({name: getattr(self, name) for name in (*names, *more)})
        return data | {
            "schema_version": _SCHEMA_VERSION,
            "outcome": self.outcome.name.lower(),
            "certificate": self.certificate.to_dict(),
            "elapsed": {part.name: part.seconds for part in self.elapsed},
            "methods": [_renamed(method.to_dict()) for method in self.methods],
        }

    @override
    def chart(self) -> Chart:
        """Return excess loss against seconds as a chart."""
        return race_chart(self.methods, self._floor, loss=self.criterion)

    @override
    def summary(self) -> Document:
        return Document(
            title=self.sentence,
            about=self._caption,
            lead=(Section(self.sentence, (), tone="headline"),),
            sections=(Section("", (self._table,)), Section("", self._footnotes)),
        )

    @override
    def page(self) -> Document:
        chart = (self.chart(),) if any(method.curve for method in self.methods) else ()
        reached = Section("What each method reached", (self._table, *self._footnotes, *chart), key="methods")
        return Document(
            title=f"{self.criterion} · closedform compare",
            about=self._caption,
            lead=(Section(self.sentence, (Paragraph(self._caption, quiet=True),), tone="headline"), reached),
            sections=(),
            data={"comparison": self.to_dict()},
        )

    @property
    def _floor(self) -> float:
        gap = self.certificate.excess_loss
        return gap if math.isfinite(gap) else 0.0

    @property
    def _table(self) -> Any:
        return methods_table(self.methods, self._floor, loss="loss", test_error="test loss")

    @property
    def _caption(self) -> str:
        ridge = f", l2 {number(self.l2)}" if self.l2 else ""
        return f"{self.criterion}{ridge}: {self._layer(plural(self.n_outputs, 'output'))}; {self._spent}"

    @property
    def _footnotes(self) -> tuple[Paragraph, ...]:
        bound = "excess: a proven bound on the loss above the minimum; that of the minimiser itself is"
        texts = (
            f"time: {self._times}.",
            "steps: evaluations of loss and gradient; weights: relative distance to the minimiser.",
            *((f"{bound} {number(self._floor)}.",) if self.outcome.certified else ()),
            f"exact minimiser: {'not certified' if self.outcome is Outcome.NOT_CERTIFIED else self.outcome}.",
            *(f"note: {note}." for note in self.notes),
        )
        return tuple(Paragraph(text, quiet=True) for text in texts)


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    curve = row.get("curve")
    renamed = {_NAMES.get(key, key): value for key, value in row.items()}
    if isinstance(curve, dict):
        renamed["curve"] = {_NAMES.get(key, key): value for key, value in curve.items()}
    return renamed
