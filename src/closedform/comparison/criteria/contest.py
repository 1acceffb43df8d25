"""One comparison by a criterion, from its rows to its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

from torch import nn
from torch.optim import SGD

from closedform.comparison.contenders import Contender, Setting
from closedform.comparison.criteria.peers import fit_peer
from closedform.comparison.criteria.problem import CriterionProblem, Tables
from closedform.comparison.criteria.results import CriterionComparison, sentence_of
from closedform.comparison.direct import measured_row
from closedform.comparison.methods import Elapsed, MethodResult
from closedform.comparison.races import INTERRUPTED, LEAST_SHARE, Lane, race_settings
from closedform.fit.convex import ConvexRequest, ConvexSolution, Curvature, curvature_at, solve_criterion
from closedform.fit.weights import Weights
from closedform.words.errors import InputError

__all__ = ["CriterionContest", "contenders_for"]

#: Shares of the largest stable step at the minimum that SGD is tried at; the loss may bend more on the way there.
_SHARES = (0.1, 0.3, 0.9)
#: Momentum that SGD is tried with.
_MOMENTUM = 0.9
#: Times by which momentum widens the range of stable steps, with some room: 2 (1 + 0.9) / 2.
_WIDER = 1.8
#: Steps of SGD where the loss has kinks, which bound no step: they are tried from far to near.
_KINKED_STEPS = (1e-3, 1e-2, 1e-1, 1.0)


def contenders_for(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the optimizers that train any criterion.

    Args:
        contenders: Those that were asked for.

    Raises:
        InputError: only recursive least squares was.
    """
    fitting = [contender for contender in contenders if contender.name != "rls"]
    if contenders and not fitting:
        raise InputError("rls minimises squared error; leave criterion= out, or choose other optimizers.")
    return fitting


@final
@dataclass(frozen=True, eq=False)
class CriterionContest:
    """What is compared, and on what.

    Attributes:
        tables: The rows, in memory, and test rows or None.
        request: The criterion, the ridge strength, whether there is a bias; weights in float64.
        contenders: The optimizers.
        budget: Seconds of training, shared equally by them.
        make_layer: Makes a fresh layer with so many outputs, always with the same weights.
        clock: Tells the seconds that are billed.
        elapsed: What took how long, filled while it runs.
    """

    tables: Tables
    request: ConvexRequest
    contenders: Sequence[Contender]
    budget: float
    make_layer: Callable[[int], nn.Linear]
    clock: Callable[[], float] = time.perf_counter
    elapsed: dict[str, float] = field(default_factory=dict)

    def run(self, report: Callable[[str, float], None]) -> CriterionComparison:
        """Run everything and return what was found; ``report`` is told the name and the part of training done."""
        start, rows = self.clock(), self.tables.rows
        exact = solve_criterion(rows, self.request)
        self.elapsed["the exact minimiser"] = self.clock() - start
        minimum = Weights(exact.weight, exact.bias)
        bent = curvature_at(rows, self.request.criterion, minimum, self.request.l2)

        problem = CriterionProblem(self.tables, self.request, exact)
        seconds = self.elapsed["the exact minimiser"]
        exact_row = measured_row(
            "exact minimiser", seconds, problem.measure(minimum), str(exact.outcome).split(":")[0].split(" -")[0]
        )
        start = self.clock()
        # Without a minimiser, or a proof, there is nothing that a method could be measured against.
        trained = self._train(problem, bent, report) if exact.outcome.certified else []
        self.elapsed["training and measuring"] = self.clock() - start
        peers = fit_peer(self.tables.rows, self.request, problem, self.clock) if exact.outcome.certified else ()
        return self._result(exact, bent, problem, (exact_row, *trained, *peers))

    def _train(
        self, problem: CriterionProblem, bent: Curvature | None, report: Callable[[str, float], None]
    ) -> list[MethodResult]:
        """Train with each optimizer in turn, until there is none left or an interrupt."""
        trained: list[MethodResult] = []
        if not self.contenders:
            return trained
        make_layer = partial(self.make_layer, problem.n_outputs)
        SGD(make_layer().parameters(), lr=0.0)  # the first of all optimizers loads torch's compiler

        started, share = self.clock(), self.budget / len(self.contenders)
        for index, contender in enumerate(self.contenders):
            left = self.budget - (self.clock() - started)
            seconds = max(left / (len(self.contenders) - index), LEAST_SHARE * share)
            lane = Lane(report, contender.name, index, len(self.contenders), seconds, self.clock)
            plain = replace(contender, settings=_words(contender))
            trained.append(race_settings(plain, _settings(contender.name, bent), 0, make_layer, problem, lane))
            if trained[-1].stopped_because == INTERRUPTED:
                break
        return trained

    def _result(
        self,
        exact: ConvexSolution,
        bent: Curvature | None,
        problem: CriterionProblem,
        methods: tuple[MethodResult, ...],
    ) -> CriterionComparison:
        rows = self.tables.rows

        return CriterionComparison(
            methods=methods,
            criterion=exact.criterion,
            l2=float(self.request.l2),
            certificate=exact.certificate,
            condition=math.nan if bent is None else bent.condition,
            learning_rate_limit=math.nan if bent is None else bent.learning_rate_limit,
            dtype=str(rows.dtype).removeprefix("torch."),
            n_rows=rows.n_rows,
            n_features=rows.n_features,
            n_outputs=exact.weight.shape[0],
            bias=self.request.bias,
            budget=self.budget,
            outcome=exact.outcome,
            sentence=sentence_of(exact, bent, problem.excess_at_zero, methods),
            elapsed=tuple(Elapsed(name, seconds) for name, seconds in self.elapsed.items()),
            notes=exact.notes,
            interrupted=any(row.stopped_because == INTERRUPTED for row in methods),
        )


def _words(contender: Contender) -> str:
    """Return what is said of its settings: no forecast has chosen these."""
    words = {
        "sgd": "lr {lr:.3g}",
        "momentum": "lr {lr:.3g}, momentum {momentum}",
        "nesterov": "lr {lr:.3g}, momentum {momentum}",
    }
    return words.get(contender.name, contender.settings)


def _settings(name: str, bent: Curvature | None) -> tuple[Setting, ...]:
    if name.startswith("lbfgs"):
        return (Setting(1.0),)
    if name == "adam":
        return tuple(Setting(lr) for lr in (1e-3, 1e-2, 1e-1, 1.0))
    stable = bent is not None and math.isfinite(bent.learning_rate_limit)
    steps = tuple(share * bent.learning_rate_limit for share in _SHARES) if bent and stable else _KINKED_STEPS
    if name == "sgd":
        return tuple(Setting(lr) for lr in steps)
    wider = _WIDER if name == "momentum" and stable else 1.0
    return tuple(Setting(wider * lr, _MOMENTUM, name == "nesterov") for lr in steps)
