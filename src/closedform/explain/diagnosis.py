"""The result of a diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.explain.advice import folklore
from closedform.explain.case import Case
from closedform.explain.charts import forecast_chart, spectrum_chart
from closedform.explain.finding import Finding, Folklore, Severity, Verdict
from closedform.explain.findings import find
from closedform.explain.forecasts import Forecast, forecast, start_coordinates
from closedform.explain.layout import diagnosis_page
from closedform.explain.recording import record
from closedform.explain.records import DiagnosisRecord, TextRecord
from closedform.explain.rehearsal import Rehearsal, rehearse
from closedform.explain.spectra import Spectrum
from closedform.explain.text import diagnosis_summary
from closedform.report import Document, Report
from closedform.words.errors import InputError
from closedform.words.metrics import flat_floats
from closedform.words.numbers import count, short, steps_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Diagnosis"]


@final
@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis(Report):
    """What keeps an optimizer from the minimiser. Print it; or ask for findings, forecasts, rehearsals.

    Everything is computed on first use, from one triangle of the rows.
    """

    case: Case

    @property
    def facts(self) -> Case:
        """The case, by the name that it had."""
        return self.case

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum of the fit, which forecasts are made from."""
        return self.case.spectrum

    @property
    def condition(self) -> float:
        """Condition number of the matrix the layer sees, ``[1 | X]`` with a bias; a lower bound where not complete."""
        return self.case.landscape.spectrum.condition

    @property
    def singular_values(self) -> Tensor:
        """Singular values of that matrix, descending, float64, ``(columns,)``."""
        return self.case.landscape.spectrum.singular_values

    @property
    def learning_rate_limit(self) -> float:
        """The largest stable step of plain gradient descent on ``MSELoss()`` (mean); for the sum see ``to_dict()``."""
        return self.case.landscape.spectrum.learning_rate_limit

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, the most severe first; empty where nothing is worth saying."""
        return find(self.case)

    @cached_property
    def verdict(self) -> Verdict:
        """The most severe finding, or that nothing is wrong."""
        for finding in self.findings:
            if finding.severity.rank <= Severity.WARNING.rank:
                return Verdict(finding.name, finding.severity, finding.title, finding.consequence)
        setting, training = self.case.setting, self.case.training
        good = f"condition {short(self.condition)}"
        if setting.optimizer is not None and training.settles:
            return Verdict("nothing_wrong", Severity.OK, f"Nothing wrong: {good}", self._arrives())
        if setting.optimizer is None and training.start_excess <= training.goal_excess:
            return Verdict("nothing_wrong", Severity.OK, f"Nothing wrong: {good}", self._is_there())
        sentence = (
            f"Gradient descent at lr {short(training.best_descent.lr / setting.loss_factor)} comes within "
            f"{short(setting.goal)} of the minimum in {steps_text(training.best_steps)}."
        )
        if setting.optimizer is not None:
            title = f"Nothing wrong in the data ({good}); the run of {setting.optimizer.name} was not judged"
            sentence = f"{training.not_judged}. {sentence}"
            return Verdict("not_judged", Severity.INFO, title, f"{sentence[0].upper()}{sentence[1:]}")
        return Verdict("nothing_wrong", Severity.OK, f"Nothing wrong: {good}", sentence)

    def _is_there(self) -> str:
        return f"The weights are at the minimum: the excess loss is {short(self.case.training.start_excess)}."

    def _arrives(self) -> str:
        """Say how it is known that the user's run comes to the goal."""
        setting, training = self.case.setting, self.case.training
        if training.start_excess <= training.goal_excess:
            return self._is_there()
        name = "" if setting.optimizer is None else setting.optimizer.name
        course = training.course
        known = "forecast" if course is None else course.known
        if course is not None and course.most > training.goal_excess:
            return (
                f"{name}, {known}, is within {short(setting.goal)} of the minimum at "
                f"{100 * course.share_within(training.goal_excess):.0f} % of its last steps; between them it jumps, to "
                f"an excess loss of {short(course.most)}."
            )
        return f"{name}, {known}, comes within {short(setting.goal)} of the minimum in the {setting.patience_text}."

    @cached_property
    def folklore(self) -> tuple[Folklore, ...]:
        """Common advice, and what each piece would change here."""
        return folklore(self.case)

    def forecast(
        self,
        optimizer: str = "sgd",
        *,
        lr: float,
        momentum: float | None = None,
        nesterov: bool | None = None,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        steps: Any = 1000,
        start: Any = None,
    ) -> Forecast:
        """Predict the loss of full-batch ``torch.optim.SGD`` without training.

        See :func:`closedform.explain.forecasts.curve.forecast`. ``start`` is the model's present weights unless given,
        or zeros without a model.
        """
        at = self.case.setting.start if start is None else start
        return forecast(
            self.case.landscape.spectrum,
            optimizer,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            dampening=dampening,
            steps=steps,
            start=at,
        )

    def rehearse(
        self, make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], *, steps: int, start: Any = None
    ) -> Rehearsal:
        """Run any torch optimizer on the triangle: the path it takes on the full data, rows / columns times cheaper.

        Args:
            make_optimizer: Given ``[weight]`` or ``[weight, bias]`` in float64, returns the optimizer.
            steps: How often ``step()`` is called.
            start: As for :meth:`forecast`.

        Raises:
            InputError: what is not the full batch and the squared error, or an optimizer that cannot be run so.

        Example:
            >>> import torch
            >>> from closedform.explain.entry import diagnose
            >>> d = diagnose([[1.0], [2.0], [3.0]], [2.0, 4.0, 6.0])
            >>> run = d.rehearse(lambda params: torch.optim.SGD(params, lr=0.1), steps=30)
            >>> bool(run.loss[-1] < 1e-12)
            True
        """
        case = self.case
        if not case.setting.squared:
            raise InputError(
                f"the criterion {case.setting.criterion.name if case.setting.criterion else ''} is not a multiple of "
                "the squared error, and "
                "only that can be rehearsed on the triangle; leave criterion= out to rehearse MSELoss()."
            )
        if not case.setting.full_batch:
            raise InputError(
                f"batches of {case.setting.batch_size} see other rows in each step, and the triangle knows only all of "
                "them; leave "
                "batch_size= out to rehearse the full batch."
            )
        if case.landscape.triangle is None:
            raise InputError(
                f"{case.setting.table.n_features} features are too many for a triangle here; raise exact_up_to= if "
                "memory allows."
            )

        V = start_coordinates(case.landscape.spectrum, case.setting.start if start is None else start)
        weight, bias = (V[1:].T, V[0]) if case.setting.bias else (V.T, None)

        return rehearse(
            case.landscape.triangle,
            make_optimizer,
            steps=steps,
            weight=weight,
            bias=bias,
            factor=case.setting.loss_factor,
        )

    @cached_property
    def record(self) -> DiagnosisRecord:
        """Everything that is said, as typed plain values."""
        return record(self.case, self.verdict, self.findings, self.folklore, text=self._lines())

    def metrics(self) -> dict[str, float]:
        """Return condition, step limit and the number of findings of each severity as flat floats, for trackers."""
        counts = {severity.value: 0 for severity in Severity}
        for finding in self.findings:
            counts[finding.severity.value] += 1
        limit = self.learning_rate_limit
        return flat_floats({"condition": self.condition, "learning_rate_limit": limit, "findings": counts})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; what is not finite becomes None."""
        return self.record.to_dict()

    def _lines(self) -> TextRecord:
        """The two sentences of numbers that stand under the verdict."""
        case, s = self.case, self.case.landscape.spectrum
        least = "" if s.complete else "at least "
        others = [f"{short(v)} {name}" for name, v in case.landscape.conditions.items() if name != "as it is"]
        conditions = f" ({', '.join(others)})" if others and s.rank else ""
        rank = f"rank {s.rank} of {s.decision.columns}" if s.complete else f"{s.rank} leading directions known"
        factor = s.n_rows * s.n_targets
        spectrum = f"Condition {least}{short(self.condition)}{conditions}; {rank}."
        if not s.in_range:
            return TextRecord(f"Condition {least}{short(self.condition)}; {rank}.", f"{s.range_text}.")
        steps = ", ".join(f"{limit.name} {count(limit.steps)}" for limit in case.training.limits)
        limits = (
            f"Largest stable lr: {short(self.learning_rate_limit)} on MSELoss(), "
            f"{short(self.learning_rate_limit / factor)} on its sum. "
            + (f"Steps to {short(case.setting.goal)} at best: {steps}." if steps else "")
        )
        return TextRecord(spectrum, limits)

    @override
    def summary(self) -> Document:
        return diagnosis_summary(self.record)

    @override
    def page(self) -> Document:
        return diagnosis_page(self.record)

    def __repr__(self) -> str:
        verdict = self.verdict
        return f"<Diagnosis: {verdict.severity.name}: {verdict.title}>"

    def plot_spectrum(self, ax: Axes | None = None) -> Axes:
        """Draw the singular values and the target's share along each direction.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from closedform.report.figure import draw

        return draw(spectrum_chart(self.record), ax)

    def plot_forecast(self, ax: Axes | None = None) -> Axes:
        """Draw the forecast curves.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from closedform.report.figure import draw

        return draw(forecast_chart(self.record, live=False), ax)
