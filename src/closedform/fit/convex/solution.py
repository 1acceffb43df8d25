"""The result of a convex fit."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.convex.certificate import GapCertificate
from closedform.fit.convex.plan import NOTHING_DONE, ConvexPlan
from closedform.fit.storage import Stored
from closedform.fit.weights import Weights
from closedform.losses import Criterion, Kinked
from closedform.rows import Rows
from closedform.rows.labels import check_columns
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.numbers import plural
from closedform.words.outcome import Outcome

__all__ = ["ConvexSolution", "face_note", "own_notes", "unseen_note"]


def unseen_note(flat: int) -> str:
    """Return the note on directions that the rows do not see.

    Args:
        flat: How many there are.
    """
    return f"{plural(flat, 'direction')} of the features {'is' if flat == 1 else 'are'} not seen by the rows"


def face_note(level: int) -> str:
    """Return the note on a minimum that is a face.

    Args:
        level: Its dimension.
    """
    return f"the minimum is a face: it stays level along {plural(level, 'direction')}"


def own_notes(rows: Rows, criterion: Criterion | Kinked) -> list[str]:
    """Return the notes of rows that a fit by a criterion has: how labels are read is none.

    Args:
        rows: The rows.
        criterion: The criterion.
    """
    return [note for note in rows.notes if not (criterion.coupled and note.startswith(f"{rows.y.name} holds"))]


@final
@dataclass(frozen=True, repr=False, eq=False)
class ConvexSolution:
    """Weights at the minimiser of a convex criterion, and the proof.

    Attributes:
        weight: ``(outputs, features)``, as ``nn.Linear`` holds them; dtype of X (float64 where X holds integers).
            Where no minimiser exists: where the descent was left.
        bias: ``(outputs,)`` or None.
        criterion: Name of the criterion.
        certificate: What a fresh pass over the rows proves of the weights, before rounding to a narrower dtype.
        outcome: How the fit ended, in one sentence.
        direction: Where no minimiser exists: a direction along which no row's loss ever rises and some fall for ever,
            checked in exact arithmetic before it was rounded to float64; else None.
        steps: Newton steps.
        passes: Reads of the rows.
        notes: What was done to the data on the way.
        seconds: Wall time.
        single_target: Whether predictions are one-dimensional.
        feature_names: What the features are called, where their table says so.
        on_face: Whether the weights are any point of a face of minimisers, and not the smallest of these.
        sharp: Whether rows on their kinks alone hold the weights, of some output at least: the gradient does not shrink
            towards them.
        stored: What rounding the weights to a narrower dtype does to the loss; None where they are float64, or were
            not certified.
    """

    weight: Tensor
    bias: Tensor | None
    criterion: str
    certificate: GapCertificate
    outcome: Outcome
    direction: Weights | None
    steps: int
    passes: int
    notes: tuple[str, ...]
    seconds: float
    single_target: bool
    feature_names: tuple[str, ...] | None = None
    on_face: bool = False
    sharp: bool = False
    stored: Stored | None = None
    plan: ConvexPlan = NOTHING_DONE

    @property
    def certified(self) -> bool:
        """Whether the weights as stored are what was asked for: the outcome is, and rounding them did not lose it."""
        return self.outcome.certified and not (self.stored is not None and self.stored.lost)

    @property
    def sentence(self) -> str:
        """How the fit ended, as stored; where nothing is certified, with what was reached and what would help."""
        if self.outcome.certified and not self.certified:
            return f"{self._verdict.partition(':')[0]}; {self.stored}"
        return self._verdict

    @property
    def _verdict(self) -> str:
        if self.outcome is Outcome.CERTIFIED_NOT_UNIQUE and self.on_face:
            return "certified, not unique: the minimum is a face, and these weights are a point of it"
        if self.direction is not None and not bool(self.direction.weight.any()):
            return (
                "no minimiser exists: along .direction, a change of the bias alone, no row's loss ever rises and some "
                "fall for ever; no ridge on the weights changes that, but data that overlap do, or a ridge without bias"
            )
        if self.outcome is not Outcome.NOT_CERTIFIED:
            return str(self.outcome)

        found = self.certificate
        if math.isfinite(found.gap):
            reached = (
                f"the objective is at most {found.gap:.1e} above its minimum, {found.relative_gap:.1e} relative, where "
                f"{found.tolerance:.0e} is asked for"
            )
        else:
            reached = f"how far the loss can still fall could not be bounded: {found.reason}"
        slope = "" if math.isnan(found.gradient_norm) else f"; the norm of the gradient is {found.gradient_norm:.1e}"
        return (
            f"not certified: {reached}{slope}; a ridge (l2=...), or a larger one, or features that depend less on each "
            "other make it certain"
        )

    def predict(self, X: Any) -> Tensor:
        """Return the outputs ``X weight' + bias`` (logits, not probabilities), in the dtype of the weights.

        Args:
            X: Features, ``(rows, features)`` or ``(..., features)``.

        Raises:
            InputError: another number of features, or their names in another order.
            DataTypeError: X is no table of numbers.
        """
        check_columns("X", X, self.feature_names)
        table, _ = as_tensor(X, "X")
        if table.dim() == 0 or table.shape[-1] != self.weight.shape[1]:
            raise InputError(
                f"X has shape {tuple(table.shape)}, but the weights are for {self.weight.shape[1]} features."
            )
        table = table.to(dtype=self.weight.dtype, device=self.weight.device)
        outputs = torch.nn.functional.linear(table, self.weight, self.bias)
        return outputs[..., 0] if self.single_target else outputs

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the certificate as flat floats, for trackers (W&B, MLflow, TensorBoard)."""
        return flat_floats({"certified": self.certified, **vars(self.certificate), "seconds": self.seconds})

    def to_dict(self) -> dict[str, Any]:
        """Return outcome, certificate and notes as plain values for JSON (not the weights, but the direction)."""
        direction = None
        if self.direction is not None:
            bias = self.direction.bias
            direction = {"weight": self.direction.weight.tolist(), "bias": None if bias is None else bias.tolist()}

        return {
            "outcome": self.outcome.name.lower(),
            "certified": self.certified,
            "sentence": self.sentence,
            "criterion": self.criterion,
            "shape": list(self.weight.shape),
            "bias": self.bias is not None,
            "dtype": str(self.weight.dtype).removeprefix("torch."),
            "seconds": self.seconds,
            "steps": self.steps,
            "passes": self.passes,
            "certificate": self.certificate.to_dict(),
            "plan": self.plan.to_dict(),
            "stored": plain(self.stored),
            "direction": direction,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        outputs, features = self.weight.shape
        bias = " + bias" if self.bias is not None else ""
        lines = [
            self.sentence,
            f"{self.criterion}: {plural(features, 'feature')}{bias} -> {plural(outputs, 'output')}, "
            f"{self.seconds:.3g} s, {plural(self.steps, 'Newton step')}, {plural(self.passes, 'read')} of the rows",
            str(self.certificate),
            *(f"done: {stage}" for stage in self.plan.stages),
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first, *rest = str(self).split("\n")
        body = "<br>".join(html.escape(line) for line in rest)
        return f"<div><strong>{html.escape(first)}</strong><br><code>{body}</code></div>"
