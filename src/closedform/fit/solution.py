"""The frozen result of a fit."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.certification import Certificate
from closedform.fit.factors import Factor
from closedform.fit.plan import Plan
from closedform.fit.statistics import StandardErrors
from closedform.fit.weights import Weights
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome

__all__ = ["Attempt", "Solution", "outcome_of"]


@final
@dataclass(frozen=True)
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
    weight_low: Tensor | None = None
    bias_low: Tensor | None = None
    weight_bound: Tensor | None = None
    bias_bound: Tensor | None = None

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
            InputError: X has another number of features.
            DataTypeError: X does not hold real numbers.

        Example:
            >>> import closedform as cf
            >>> sol = cf.solve([[1.0], [2.0], [3.0]], [2.0, 4.0, 6.0])
            >>> sol.predict([[10.0]]).round(decimals=12)
            tensor([20.], dtype=torch.float64)
        """
        x, _ = as_tensor(X, "X")
        features = self.weight.shape[1]
        if x.ndim == 0 or x.shape[-1] != features:
            raise InputError(f"X has shape {tuple(x.shape)}; the weights were fitted to {features} features.")
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

    def to_dict(self) -> dict[str, Any]:
        """Return outcome, certificate, plan, attempts and notes as plain values for JSON (not the weights)."""
        return {
            "outcome": self.outcome.name.lower(),
            "sentence": self.outcome.value,
            "shape": list(self.weight.shape),
            "bias": self.bias is not None,
            "dtype": str(self.weight.dtype).removeprefix("torch."),
            "seconds": self.seconds,
            "certificate": self.certificate.to_dict(),
            "plan": self.plan.to_dict(),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        targets, features = self.weight.shape
        bias = " + bias" if self.bias is not None else ""
        lines = [
            str(self.outcome),
            f"{_count(features, 'feature')}{bias} -> {_count(targets, 'target')}, "
            f"{self.seconds:.3g} s by {self.attempts[-1].method}",
            str(self.certificate),
        ]
        lines += dict.fromkeys(f"tried {a.method}: {a.reason}" for a in self.attempts[:-1])
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first, *rest = str(self).split("\n")
        body = "<br>".join(html.escape(line) for line in rest)
        return f"<div><strong>{html.escape(first)}</strong><br><code>{body}</code></div>"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


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
