"""The frozen result of a fit."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from closedform.fit.certification import Certificate
from closedform.fit.factors import Factor
from closedform.fit.plan import Plan
from closedform.fit.statistics import NoStandardErrors, StandardErrors
from closedform.fit.storage import Stored
from closedform.fit.weights import Weights
from closedform.rows.labels import check_columns
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.numbers import plural, short
from closedform.words.outcome import Outcome

if TYPE_CHECKING:
    from closedform.fit.summary import Summary

__all__ = ["Attempt", "Solution", "involved_text", "outcome_of"]

#: Names of columns that a line of text holds at most.
_NAMED = 6


@final
@dataclass(frozen=True, repr=False)
class Attempt:
    """One rung of the ladder.

    Attributes:
        method: Name of the method.
        seconds: Wall time of factoring, refining and certifying.
        passes: Passes over the rows that refinement took.
        reason: Why it was accepted or refused.
        certificate: The certificate, or None where the factor broke down.
    """

    method: str
    seconds: float
    passes: int
    reason: str
    certificate: Certificate | None

    def __str__(self) -> str:
        return f"{self.method}: {self.reason} ({self.seconds:.2g} s, {self.passes} times over the rows)"

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "method": self.method,
            "seconds": self.seconds,
            "passes": self.passes,
            "reason": self.reason,
            "accepted": self.certificate is not None and self.certificate.accepted,
            "backward_error": None if self.certificate is None else self.certificate.backward_error,
        }


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """What an attempt found: weights, what was measured of them, and the factor they came from."""

    weights: Weights
    certificate: Certificate
    factor: Factor


@final
@dataclass(frozen=True, repr=False, eq=False)
class Solution:
    """Weights at the minimiser, and the evidence.

    Attributes:
        weight: ``(targets, features)``, as ``nn.Linear`` holds them; dtype of X (float64 where X holds integers).
        bias: ``(targets,)`` or None.
        certificate: What a fresh pass over the rows says about the weights (before rounding to a narrower dtype).
        outcome: How the fit ended, in one sentence.
        plan: What was to be tried, in order, with predicted costs.
        attempts: What was tried and why it was refused or accepted.
        notes: Everything that was done to the data on the way: casts, cuts, rounding.
        seconds: Wall time of the whole solve.
        weight_low: With ``digits``: what rounding took from ``weight``, so that the sum of both has about 30 digits;
            float64, else None. Likewise ``bias_low``.
        weight_bound: With ``digits``: proven bound on the absolute error of ``weight + weight_low``, ``(targets,
            features)``; inf where there is none. Likewise ``bias_bound``.
        rows: Number of rows that count, those of weight zero left out.
        stored: What rounding the weights to a narrower dtype does to the loss; None where they are float64, or were
            not certified.
        feature_names: What the features are called, where their table says so. Likewise ``target_names``.
    """

    weight: Tensor
    bias: Tensor | None
    certificate: Certificate
    outcome: Outcome
    plan: Plan
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]
    seconds: float
    single_target: bool
    _standard_errors: StandardErrors
    _scale: Tensor
    weight_low: Tensor | None = None
    bias_low: Tensor | None = None
    weight_bound: Tensor | None = None
    bias_bound: Tensor | None = None
    rows: int = 0
    stored: Stored | None = None
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None

    @property
    def certified(self) -> bool:
        """Whether the weights as stored are what was asked for: the outcome is, and rounding them did not lose it."""
        return self.outcome.certified and not (self.stored is not None and self.stored.lost)

    @property
    def headline(self) -> str:
        """What is to be known before the weights are used: how the fit ended, as stored, and of which model it is."""
        verdict, colon, what = self.outcome.value.partition(":")
        if self.outcome.certified and self.stored is not None and self.stored.lost:
            return f"{verdict}; {self.stored} ({self._model()})"
        return f"{verdict}{colon}{what} ({self._model()})"

    def _model(self) -> str:
        targets, features = self.weight.shape
        bias = "with" if self.bias is not None else "without"
        return (
            f"{plural(self.rows, 'row')}, {plural(features, 'feature')}{_listed(self.feature_names)} {bias} a bias "
            f"-> {plural(targets, 'target')}{_listed(self.target_names)}"
        )

    @property
    def r_squared(self) -> tuple[float, ...]:
        """Coefficient of determination of each target on the rows of the fit, as scikit-learn's ``r2_score``."""
        return self.certificate.r_squared

    @property
    def residual_std(self) -> tuple[float, ...]:
        """Residual standard deviation of each target, with rows less rank degrees of freedom."""
        return self.certificate.residual_std

    def predict(self, X: Any) -> Tensor:
        """Return predictions for X ``(..., features)``: ``(..., targets)``, or ``(...)`` where Y had one dimension.

        Raises:
            InputError: X has another number of features, or their names in another order.
            DataTypeError: X does not hold real numbers.

        Example:
            >>> import closedform as cf
            >>> sol = cf.solve([[1.0], [2.0], [3.0]], [2.0, 4.0, 6.0])
            >>> sol.predict([[10.0]]).round(decimals=12)
            tensor([20.], dtype=torch.float64)
        """
        check_columns("X", X, self.feature_names)
        x, _ = as_tensor(X, "X")
        features = self.weight.shape[1]
        if x.ndim == 0 or x.shape[-1] != features:
            raise InputError(f"X has shape {tuple(x.shape)}; the weights were fitted to {plural(features, 'feature')}.")
        bias = None if self.bias is None else self.bias.to(x.device)
        result = torch.nn.functional.linear(x.to(self.weight.dtype), self.weight.to(x.device), bias)
        return result.squeeze(-1) if self.single_target else result

    def standard_errors(self, X: Any = None, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        """Return the standard errors of weight and bias, with their shapes, in float64.

        Under the usual model: errors independent with equal variance (or variance proportional to 1/weight). A
        solution keeps no rows; its factor tells them where it is accurate to 8 digits, which is so for small and
        for ill-conditioned tables. Else pass the features once more. Source: Golub and Van Loan (2013, 5.3).

        Args:
            X: The features of the fit, ``(rows, features)``, or None.
            sample_weight: The weights of the fit, where it had any and X is given.

        Raises:
            InputError: with a ridge, without unique weights, or without degrees of freedom there is no such number;
                X is needed and was not given, or is another.

        Example:
            >>> import closedform as cf
            >>> sol = cf.solve([[0.0], [1.0], [2.0]], [0.0, 1.0, 3.0], bias=True)
            >>> weight_error, bias_error = sol.standard_errors()
            >>> round(float(weight_error[0, 0]), 6)
            0.288675
        """
        return self._standard_errors.compute(X, sample_weight)

    def summary(self, X: Any = None, sample_weight: Any = None, *, level: float = 0.95) -> Summary:
        """Return a statistician's table: each weight with its standard error, t, p, interval and correct digits.

        It shows itself as text and in a notebook; ``to_frame()`` makes a pandas frame of it. Standard errors are those
        of :meth:`standard_errors`, t and p those of Student's distribution with rows less rank degrees of freedom. R^2
        without a bias is that about zero, as other packages have it; ``r_squared`` is about the mean. Digits speak of
        the rounding in the weights alone: proven with ``digits=``, else from the estimated error.

        Args:
            X: The features of the fit, where :meth:`standard_errors` needs them.
            sample_weight: The weights of the fit, where X is given and it had any.
            level: Of the confidence intervals.

        Raises:
            InputError: a level that is none, or X that are not those of the fit.

        Example:
            >>> import closedform as cf
            >>> table = cf.solve([[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 3.0, 3.0], bias=True).summary()
            >>> table.coefficients.p.numpy().round(4).tolist()
            [[0.8586, 0.0533]]
        """
        from closedform.fit.summary import Coefficients, Summary, adjusted, check_level  # loaded only when asked for

        level = check_level(level)
        notes: tuple[str, ...] = ()
        values = self._coefficients(self.weight, self.bias).to(torch.float64)
        errors = torch.full_like(values, math.nan)
        try:
            errors = self._coefficients(*self.standard_errors(X, sample_weight))
        except InputError as reason:
            if X is not None and not isinstance(self._standard_errors, NoStandardErrors):
                raise
            notes = (f"no standard errors: {reason}",)

        certificate, bias = self.certificate, self.bias is not None
        freedom = self.rows - certificate.rank
        fractions = certificate.r_squared if bias else certificate.r_squared_about_zero
        if not bias:
            notes += ("R^2 is about zero, as usual without a bias; sol.r_squared is about the mean",)
        kind = "estimated" if self.weight_bound is None else "proven"
        notes += (f"digits: correct decimal digits of the weight as a minimiser, {kind}",)
        features, targets = self.weight.shape[1], self.weight.shape[0]
        return Summary(
            headline=self.headline,
            facts=self._facts(freedom),
            names=("bias",) * bias + (self.feature_names or tuple(f"column {i}" for i in range(features))),
            targets=self.target_names or tuple(f"target {i}" for i in range(targets)),
            coefficients=Coefficients.of(values, errors, self._numerical_errors(values), freedom=freedom, level=level),
            r_squared=fractions,
            adjusted_r_squared=tuple(adjusted(r, self.rows, certificate.rank, bias=bias) for r in fractions),
            residual_std=certificate.residual_std,
            level=level,
            notes=notes,
        )

    @staticmethod
    def _coefficients(weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the bias and the weights beside it, ``(targets, coefficients)``."""
        return (weight if bias is None else torch.cat([bias.unsqueeze(1), weight], 1)).cpu()

    def _facts(self, freedom: int) -> tuple[tuple[str, str], ...]:
        c = self.certificate
        return (
            ("rows", f"{self.rows:,}"),
            ("degrees of freedom", f"{max(freedom, 0):,}"),
            ("rank", f"{c.rank} of {c.columns}{' (ambiguous)' if c.ambiguous_rank else ''}"),
            ("condition", f"{short(c.condition)}, {short(c.scaled_condition)} with columns scaled"),
            ("certificate", c.verdict),
            ("loss", f"{c.loss:.6g}"),
        )

    def _numerical_errors(self, values: Tensor) -> Tensor:
        """Return what is known of the error of each coefficient as stored, ``(targets, coefficients)``."""
        if self.weight_bound is not None and self.weight_low is not None:
            bounds = self._coefficients(self.weight_bound, self.bias_bound)
            return bounds + self._coefficients(self.weight_low, self.bias_low).abs()
        scale = self._scale.cpu()
        # The estimate bounds the whole vector of coordinates, and so each of them.
        sizes = torch.linalg.vector_norm(values / scale, dim=1, keepdim=True)
        rounding = torch.finfo(self.weight.dtype).eps / 2 * values.abs()
        return self.certificate.forward_error * sizes * scale + rounding

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the certificate as flat floats, for trackers (W&B, MLflow, TensorBoard).

        Example:
            >>> import closedform as cf
            >>> cf.solve([[1.0], [2.0]], [1.0, 2.0]).metrics()["certified"]
            1.0
        """
        targets = len(self.r_squared)
        return flat_floats(
            {
                "certified": self.outcome.certified,
                **vars(self.certificate),
                "digits": self.certificate.digits,
                "r_squared": sum(self.r_squared) / targets,
                "residual_std": sum(self.residual_std) / targets,
                "seconds": self.seconds,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return outcome, certificate, plan, attempts and notes as plain values for JSON (not the weights)."""
        return {
            "outcome": self.outcome.name.lower(),
            "sentence": self.outcome.value,
            "certified": self.certified,
            "rows": self.rows,
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "target_names": None if self.target_names is None else list(self.target_names),
            "stored": plain(self.stored),
            "shape": list(self.weight.shape),
            "bias": self.bias is not None,
            "dtype": str(self.weight.dtype).removeprefix("torch."),
            "seconds": self.seconds,
            "certificate": self.certificate.to_dict(),
            "plan": self.plan.to_dict(),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "notes": list(self.notes),
        }

    def _best_attempt(self) -> Attempt:
        """Return the attempt that the weights come from: not the last one where that was worse than one before it."""
        error = self.certificate.backward_error
        found = (a for a in reversed(self.attempts) if a.certificate and a.certificate.backward_error == error)
        return next(found, self.attempts[-1])

    def __str__(self) -> str:
        best = self._best_attempt()
        lines = [self.headline, f"{self.seconds:.3g} s by {best.method}", str(self.certificate)]
        lines += dict.fromkeys(f"tried {a.method}: {a.reason}" for a in self.attempts if a is not best)
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first, *rest = str(self).split("\n")
        body = "<br>".join(html.escape(line) for line in rest)
        return f"<div><strong>{html.escape(first)}</strong><br><code>{body}</code></div>"


def _listed(names: tuple[str, ...] | None) -> str:
    """Return the first of some names in parentheses, or nothing where there are none."""
    if not names:
        return ""
    return f" ({', '.join(names if len(names) <= _NAMED else [*names[: _NAMED - 1], '...'])})"


def involved_text(columns: tuple[int, ...], names: tuple[str, ...] | None) -> str:
    """Return what follows a sentence on undetermined directions: the columns that take part, by name where they have.

    Example:
        >>> involved_text((1, -1), ("height", "width")), involved_text((), None)
        (', in which width, the bias take part', '')
    """
    if not columns:
        return ""
    shown = [
        "the bias" if column < 0 else f"column {column}" if names is None else names[column]
        for column in columns[:_NAMED]
    ]
    more = f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
    return f", in which {', '.join(shown)}{more} {'take' if len(columns) > 1 else 'takes'} part"


def outcome_of(certificate: Certificate) -> Outcome:
    """Return the outcome that a certificate stands for."""
    if not certificate.accepted:
        return Outcome.NOT_CERTIFIED
    if certificate.truncated:
        return Outcome.TRUNCATED
    if certificate.ambiguous_rank:
        return Outcome.AMBIGUOUS_RANK
    if certificate.rank < certificate.columns:
        return Outcome.CERTIFIED_NOT_UNIQUE
    return Outcome.CERTIFIED
