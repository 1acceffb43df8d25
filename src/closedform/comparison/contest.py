"""One comparison from its rows to its result: the closed form, the diagnosis, every optimizer, scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import SGD

from closedform.comparison.contenders import Contender, Outlook
from closedform.comparison.direct import direct_row, exact_solution, fit_kernel_ridge, fit_scikit_learn, timed_solve
from closedform.comparison.headlines import headline
from closedform.comparison.methods import Elapsed, MethodResult
from closedform.comparison.overlay import with_measured_runs
from closedform.comparison.problem import Problem
from closedform.comparison.races import INTERRUPTED, LEAST_SHARE, Lane, race
from closedform.comparison.results import Comparison
from closedform.comparison.tables import casts, make_problem
from closedform.engine.threads import one_thread
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose_for
from closedform.explain.spectra import Spectrum
from closedform.fit.solution import Solution
from closedform.fit.weights import Weights
from closedform.rows import Rows, Scan, scan

__all__ = ["Contest", "fresh_layer"]

#: Gradients that are timed for an estimate of the steps that there is time for.
_TIMED = 3


@final
@dataclass(frozen=True, eq=False)
class Contest:
    """What is compared, and on what.

    Attributes:
        rows: The table, in memory.
        test: X and Y of the test rows in float64, or None.
        bias: Whether the layer has a bias.
        contenders: The optimizers.
        budget: Seconds for all of it; what else takes time leaves is shared equally by them.
        make_layer: Makes a fresh layer, always with the same weights.
        clock: Tells the seconds that are billed.
        waited: Seconds of the budget that went before the call.
        elapsed: What took how long, filled while it runs.
    """

    rows: Rows
    test: tuple[Tensor, Tensor] | None
    bias: bool
    contenders: Sequence[Contender]
    budget: float
    make_layer: Callable[[], nn.Linear]
    clock: Callable[[], float]
    waited: float = 0.0
    elapsed: list[Elapsed] = field(default_factory=list)

    def run(self, report: Callable[[str, float], None]) -> Comparison:
        """Run everything and return what was found; ``report`` is told the name and the part of training done."""
        if self.waited:
            self.elapsed.append(Elapsed("starting Python and torch", self.waited))
        with self._timed("the closed form"):
            start = self.clock()
            begun = start - self.waited
            scanned = scan(self.rows)
            scanning = self.clock() - start
            solution, exact, seconds = self._solve(scanned)
        problem = make_problem(self.rows, exact, self.test)
        diagnosis = self._diagnose(scanned)
        spectral, training = diagnosis.spectrum, diagnosis.case.training
        found, ending = Weights(solution.weight, solution.bias), str(solution.outcome).split(":")[0]
        closed_form = direct_row("closed form", scanning + seconds, found, problem, ending)

        with self._timed("scikit-learn"):
            scikit_learn = fit_scikit_learn(self.rows, self.bias, problem, self.clock)
        with self._timed("kernel ridge"):
            kernel_ridge = fit_kernel_ridge(self.rows, self.bias, problem, self.clock)
        # Last, so that what the others leave of the budget is known.
        with self._timed("training and measuring"):
            trained = [] if training.obstacle else self._train(problem, spectral, report, begun)
        with self._timed("the diagnosis"), self._alone():
            record = with_measured_runs(diagnosis.record, spectral, self._start(), trained)

        floor = self._rounding_floor(problem, closed_form, [*trained, *kernel_ridge], scikit_learn)
        dtype = str(self.rows.dtype).removeprefix("torch.")
        return Comparison(
            methods=(closed_form, *trained, *scikit_learn, *kernel_ridge),
            condition=spectral.condition,
            rank=solution.certificate.rank,
            learning_rate_limit=spectral.learning_rate_limit,
            steps_needed=training.best_steps_from_zero,
            optimal_loss=record.loss.optimal,
            excess_floor=problem.excess_floor,
            rounding_floor=floor,
            dtype=dtype,
            n_rows=self.rows.n_rows,
            n_features=self.rows.n_features,
            n_targets=self.rows.n_targets,
            bias=self.bias,
            budget=self.budget,
            outcome=solution.outcome,
            sentence=headline(diagnosis.case, trained, rounding_floor=floor),
            diagnosis=record,
            elapsed=tuple(self.elapsed),
            notes=self.rows.notes + casts(self.rows),
            interrupted=any(row.stopped_because == INTERRUPTED for row in trained),
        )

    def _diagnose(self, scanned: Scan) -> Diagnosis:
        """Return what keeps a first-order optimizer from the minimiser, its numbers computed."""
        with self._timed("the diagnosis"), self._alone():
            diagnosis = diagnose_for(
                None,
                self.rows.x,
                self.rows.y,
                bias=self.bias,
                sample_weight=self.rows.weight,
                model=self.make_layer(),
                scanned=scanned,
            )
            _ = diagnosis.record
            return diagnosis

    def _rounding_floor(
        self,
        problem: Problem,
        closed_form: MethodResult,
        trained: Sequence[MethodResult],
        scikit_learn: Sequence[MethodResult],
    ) -> float:
        """Return the excess loss that rounding makes near the minimiser; what a row is seen to be below is none."""
        # Half precision is none of scikit-learn's.
        peers = scikit_learn if self.rows.dtype in (torch.float32, torch.float64) else ()
        lowest = min(method.excess_loss for method in (closed_form, *trained, *peers))
        return max(min(problem.rounding_floor(problem.minimiser), lowest), problem.excess_floor)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the time of a part to what is told of it."""
        start = self.clock()
        yield
        seconds = self.clock() - start
        before = next((i for i, part in enumerate(self.elapsed) if part.name == name), None)
        if before is None:
            self.elapsed.append(Elapsed(name, seconds))
        else:
            self.elapsed[before] = Elapsed(name, self.elapsed[before].seconds + seconds)

    def _alone(self) -> AbstractContextManager[None]:
        """One thread for what is small: on a busy machine several wait for each other many times as long."""
        return one_thread(self.rows.n_features, self.rows.device, targets=self.rows.n_targets)

    def _solve(self, scanned: Scan) -> tuple[Solution, Solution, float]:
        """Return the closed form, the same unrounded, and the seconds it takes after the scan."""
        solution, seconds = timed_solve(self.rows, scanned, self.bias, self.clock)
        # In float32 the weights are rounded to the layer; what they are measured against is not.
        exact = solution if self.rows.dtype == torch.float64 else exact_solution(self.rows, scanned, self.bias)
        return solution, exact, seconds

    def _start(self) -> Any:
        """Return the starting weights as a forecast takes them."""
        layer = self.make_layer()
        return (layer.weight, layer.bias) if self.bias else layer.weight

    def _train(
        self, problem: Problem, spectral: Spectrum, report: Callable[[str, float], None], begun: float
    ) -> list[MethodResult]:
        """Train with each optimizer in turn, until there is none left or an interrupt.

        Args:
            problem: What is trained on.
            spectral: The spectrum of the rows.
            report: Told the name and the part of training done.
            begun: When the clock of the budget began to run.
        """
        trained: list[MethodResult] = []
        if not self.contenders:
            return trained

        # Loading torch's optimizers, choosing settings and measuring are waited for as well, so they come off the
        # budget; but each has a part of its share whatever they take.
        share = self.budget / len(self.contenders)
        SGD(self.make_layer().parameters(), lr=0.0)  # the first of all optimizers loads torch's compiler
        layer, limit = self.make_layer(), spectral.learning_rate_limit
        steps = max(self.budget - (self.clock() - begun), LEAST_SHARE * self.budget) / len(self.contenders)
        steps /= self._seconds_of_a_step(problem, layer)
        outlook = Outlook(
            spectrum=spectral,
            limit=limit if math.isfinite(limit) else 1.0,  # X = 0: no step is unstable
            start=self._start(),
            steps=steps,
            eps=torch.finfo(self.rows.dtype).eps,
        )
        for index, contender in enumerate(self.contenders):
            left = self.budget - (self.clock() - begun)
            seconds = max(left / (len(self.contenders) - index), LEAST_SHARE * share)
            lane = Lane(report, contender.name, index, len(self.contenders), seconds, self.clock)
            trained.append(race(contender, self.make_layer, problem, outlook, lane))
            if trained[-1].stopped_because == INTERRUPTED:
                break
        return trained

    def _seconds_of_a_step(self, problem: Problem, layer: nn.Linear) -> float:
        """Return the least of a few times of a gradient."""
        seconds = []
        for _ in range(_TIMED):
            start = self.clock()
            problem.loss(layer).backward()  # type: ignore[no-untyped-call]
            seconds.append(self.clock() - start)
        return max(min(seconds), 1e-9)


def fresh_layer(rows: Rows, bias: bool, start: nn.Linear | None, seed: int, n_outputs: int | None = None) -> nn.Linear:
    """Return a new layer; its own generator leaves the global one alone and draws the same numbers.

    Args:
        rows: What it is for.
        bias: Whether it has a bias.
        start: A layer to take the weights from, or None.
        seed: Of the weights else.
        n_outputs: Its outputs; None for as many as there are targets.
    """
    outputs = rows.n_targets if n_outputs is None else n_outputs
    # Made on the meta device, where nothing is drawn from the global generator.
    layer = nn.Linear(rows.n_features, outputs, bias=bias, dtype=rows.dtype, device="meta")
    layer.to_empty(device="cpu")
    with torch.no_grad():
        if start is not None:
            layer.weight.copy_(start.weight)
            if bias:
                layer.bias.zero_() if start.bias is None else layer.bias.copy_(start.bias)
        else:
            generator = torch.Generator().manual_seed(seed)
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if bias:
                bound = 1 / math.sqrt(rows.n_features)
                layer.bias.uniform_(-bound, bound, generator=generator)
    layer.to(rows.device)
    return layer
