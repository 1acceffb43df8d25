"""Targets with ridge strengths of their own: solved by groups of equal strength, then joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.solution import Solution
from closedform.fit.statistics import StandardErrors
from closedform.fit.storage import Stored

__all__ = ["groups_of", "join"]


def groups_of(strengths: Sequence[float]) -> list[tuple[float, list[int]]]:
    """Return each strength, ascending, with the targets that have it.

    Args:
        strengths: One for each target.

    Example:
        >>> groups_of([1.0, 0.0, 1.0])
        [(0.0, [1]), (1.0, [0, 2])]
    """
    return [
        (strength, [target for target, other in enumerate(strengths) if other == strength])
        for strength in sorted(set(strengths))
    ]


@final
@dataclass(frozen=True, eq=False)
class JoinedErrors(StandardErrors):
    """The standard errors of groups of targets, in the order of the targets.

    Attributes:
        parts: Those of the groups.
        order: Where each target stands among the groups, ``(targets,)``.
    """

    parts: tuple[StandardErrors, ...]
    order: Tensor

    @override
    def compute(self, X: Any = None, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        parts = [part.compute(X, sample_weight) for part in self.parts]
        offsets = [offset for _, offset in parts if offset is not None]
        weight = torch.cat([weight for weight, _ in parts])[self.order]
        return weight, torch.cat(offsets)[self.order] if offsets else None


def _stored(groups: list[tuple[Tensor, Solution]], share: list[float]) -> Stored | None:
    """Return what storing all targets lost: it is lost where that of a group is."""
    parts = [solution.stored for _, solution in groups]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    return Stored(
        known[0].dtype,
        sum(part.loss * size for part, size in zip(known, share, strict=True)),
        sum(part.certified_loss * size for part, size in zip(known, share, strict=True)),
        any(part.lost for part in known),
    )


def join(groups: list[tuple[Tensor, Solution]]) -> Solution:
    """Join the solutions of groups of targets with different ridge strengths; the worst certificate speaks."""
    worst = max(
        (solution for _, solution in groups),
        key=lambda s: (s.outcome.severity, s.certificate.backward_error),
    )
    order = torch.argsort(torch.cat([chosen for chosen, _ in groups]))
    weight = torch.cat([solution.weight for _, solution in groups])[order.to(worst.weight.device)]
    biases = [solution.bias for _, solution in groups if solution.bias is not None]
    bias = torch.cat(biases)[order.to(weight.device)] if biases else None
    share = [chosen.numel() / weight.shape[0] for chosen, _ in groups]
    certificates = [solution.certificate for _, solution in groups]

    def per_target(name: str) -> tuple[float, ...]:
        values = [value for certificate in certificates for value in getattr(certificate, name)]
        return tuple(values[int(i)] for i in order)

    certificate = replace(
        worst.certificate,
        backward_error=max(c.backward_error for c in certificates),
        joint_backward_error=max(c.joint_backward_error for c in certificates),
        forward_error=max(c.forward_error for c in certificates),
        loss=sum(c.loss * part for c, part in zip(certificates, share, strict=True)),
        loss_with_bias=None
        if (left := [c.loss_with_bias for c in certificates]).count(None)
        else sum((value or 0.0) * part for value, part in zip(left, share, strict=True)),
        gradient_norm=math.hypot(*(c.gradient_norm * part for c, part in zip(certificates, share, strict=True))),
        residual_norm=math.hypot(*(c.residual_norm for c in certificates)),
        r_squared=per_target("r_squared"),
        residual_std=per_target("residual_std"),
        r_squared_about_zero=per_target("r_squared_about_zero"),
        rounding_error=max(errors)
        if (errors := [c.rounding_error for c in certificates if c.rounding_error is not None])
        else None,
        forward_bound=max(bounds)
        if (bounds := [c.forward_bound for c in certificates if c.forward_bound is not None])
        else None,
    )

    def joined(name: str) -> Tensor | None:
        values = [getattr(solution, name) for _, solution in groups]
        return None if any(value is None for value in values) else torch.cat(values)[order.to(weight.device)]

    return replace(
        worst,
        weight=weight,
        _standard_errors=JoinedErrors(tuple(solution._standard_errors for _, solution in groups), order),
        bias=bias,
        certificate=certificate,
        outcome=worst.outcome,
        attempts=tuple(attempt for _, solution in groups for attempt in solution.attempts),
        notes=tuple(dict.fromkeys(note for _, solution in groups for note in solution.notes)),
        stored=_stored(groups, share),
        weight_low=joined("weight_low"),
        bias_low=joined("bias_low"),
        weight_bound=joined("weight_bound"),
        bias_bound=joined("bias_bound"),
    )
