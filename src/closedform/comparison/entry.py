"""Real optimizers beside the closed form, in the same minutes, on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from closedform.comparison.causes import EXCESS, cause
from closedform.comparison.contenders import CONTENDERS, SAFETY, Contender
from closedform.comparison.direct import direct_row, exact_solution, fit_scikit_learn, timed_solve
from closedform.comparison.methods import MethodResult
from closedform.comparison.obstacles import obstacle
from closedform.comparison.overlay import with_measured_runs
from closedform.comparison.problem import Weights
from closedform.comparison.races import INTERRUPTED, Lane, race
from closedform.comparison.results import Comparison
from closedform.comparison.tables import casts, held_out_rows, in_memory, make_problem
from closedform.engine.tracing import untraced
from closedform.explain.entry import diagnose
from closedform.explain.forecasts import gradient_descent_steps
from closedform.explain.spectra import Spectrum, spectrum
from closedform.fit.layers import check_finite, check_linear
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows import Rows, as_rows
from closedform.words.errors import InputError
from closedform.words.numbers import plural
from closedform.words.progress import Progress

__all__ = ["OPTIMIZERS", "compare"]

OPTIMIZERS = tuple(contender.name for contender in CONTENDERS)

_SEEDS = (-(2**63), 2**64 - 1)  # what torch.manual_seed takes


@untraced
def compare(
    X: Any,
    Y: Any,
    X_test: Any = None,
    Y_test: Any = None,
    *,
    bias: bool = False,
    sample_weight: Any = None,
    optimizers: Sequence[str] = OPTIMIZERS,
    budget: float = 30.0,
    layer: nn.Linear | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | bool | None = None,
) -> Comparison:
    """Train ``nn.Linear`` with real optimizers and set what they reach beside the closed form.

    Every optimizer gets its own fresh layer with the same starting weights, the whole table as one batch,
    ``MSELoss()`` and an equal share of the budget. Only training is billed; losses are measured off the clock, in
    float64. Training stops early where nothing more can come: converged to rounding, diverged, or stuck. Ctrl-C ends
    the training and returns what is there, with ``interrupted`` set. Where the numbers are beyond the range of the
    dtype no optimizer is run, and the sentence says so. Neither the arguments nor the global random number generator
    are changed; autocast, ``no_grad`` and inference mode of the caller are switched off for the time of the call.

    Args:
        X: Features, ``(rows, features)``; trained on in their own floating dtype, float64 if they are integers.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``; trained on in the dtype of X, measured as they are.
        X_test: Features of test rows, or None.
        Y_test: Their targets, or None.
        bias: Whether the layer has a bias.
        sample_weight: One non-negative weight per row, or None; the loss is then the weighted mean.
        optimizers: Names out of ``sgd``, ``momentum``, ``nesterov``, ``adam``, ``lbfgs``, ``lbfgs strong wolfe``,
            ``rls`` (:class:`closedform.optim.RecursiveLeastSquares`).
        budget: Seconds of training, shared equally by the optimizers.
        layer: A layer to take the starting weights from; by default those of a new ``nn.Linear``.
        seed: Seed of a new layer's weights: those of ``nn.Linear`` after ``torch.manual_seed(seed)``.
        progress: ``None`` shows progress on interactive terminals after two seconds; ``False`` never; a function is
            called with a label and the part done, from 0 to 1, about ten times a second.

    Returns:
        A :class:`Comparison`: the closed form first, then the optimizers, then scikit-learn's ``LinearRegression`` if
        it is installed. Print it, ``.plot()`` it, or write it with ``.to_html()``.

    Raises:
        InputError: shapes that do not belong together, an unknown optimizer, a budget that is not positive, a seed
            that torch does not take, or weights of the minimiser that the dtype of X cannot hold.
        NonFiniteError: NaN or infinity in the data.
        DataTypeError: data that are not dense real numbers, or a layer that is no ``nn.Linear``.

    Example:
        >>> import torch
        >>> from closedform.comparison.entry import compare
        >>> X = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> result = compare(X, X @ torch.tensor([1.0, 2.0, 3.0]).double(), optimizers=["sgd"], budget=2.0)
        >>> result["sgd"].excess_loss < 1e-20
        True
    """
    contenders = _choose(optimizers)
    if not (math.isfinite(budget) and budget > 0):
        raise InputError(f"budget is {budget}; it is the number of seconds to train for and must be positive.")
    if not _SEEDS[0] <= seed <= _SEEDS[1]:
        raise InputError(f"seed is {seed}; torch takes integers from -2**63 to 2**64 - 1.")
    with torch.inference_mode(False), torch.no_grad():
        rows = in_memory(as_rows(X, Y, sample_weight))
        if layer is not None:
            _check_layer(layer, rows)
        test = held_out_rows(X_test, Y_test, rows)
    with _plain_training(rows.device):
        return _compare(rows, test, bias, contenders, budget, layer, seed, progress)


@contextmanager
def _plain_training(device: torch.device) -> Iterator[None]:
    """Train in the dtype of the layer and with gradients, whatever the caller has switched on."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def _compare(
    rows: Rows,
    test: tuple[Tensor, Tensor] | None,
    bias: bool,
    contenders: Sequence[Contender],
    budget: float,
    layer: nn.Linear | None,
    seed: int,
    progress: Callable[[str, float], None] | bool | None,
) -> Comparison:
    solution, seconds = timed_solve(rows, bias)
    # In float32 the weights are rounded to the layer; what they are measured against is not.
    exact = solution if rows.dtype == torch.float64 else exact_solution(rows, bias)
    problem = make_problem(rows, exact, test)
    spectral = spectrum(rows.x, rows.y, bias=bias, sample_weight=rows.weight)
    rate_limit = spectral.learning_rate_limit
    stable = rate_limit if math.isfinite(rate_limit) else 1.0  # X = 0: no step is unstable

    ending = str(solution.outcome).split(":")[0]
    closed_form = direct_row("closed form", seconds, Weights(solution.weight, solution.bias), problem, ending)
    scikit_learn = fit_scikit_learn(rows, bias, problem)
    make_layer = partial(_fresh_layer, rows, bias, layer, seed)
    trained: list[MethodResult] = []
    blocked = obstacle(problem, make_layer(), spectral)
    with Progress(progress) as report:
        for index, contender in enumerate([] if blocked else contenders):
            lane = Lane(report, contender.name, index, len(contenders), budget / len(contenders))
            trained.append(race(contender, make_layer, problem, stable, lane))
            if trained[-1].stopped_because == INTERRUPTED:
                break

    diagnosis = diagnose(rows.x, rows.y, bias=bias, sample_weight=rows.weight, model=make_layer())
    optimal_loss = exact.certificate.loss
    steps_needed = _steps_needed(spectral)
    return Comparison(
        methods=(closed_form, *trained, *scikit_learn),
        condition=spectral.condition,
        rank=solution.certificate.rank,
        learning_rate_limit=rate_limit,
        steps_needed=steps_needed,
        optimal_loss=optimal_loss,
        excess_floor=problem.excess_floor,
        rounding_floor=problem.rounding_floor,
        dtype=str(rows.dtype).removeprefix("torch."),
        n_rows=rows.n_rows,
        n_features=rows.n_features,
        n_targets=rows.n_targets,
        bias=bias,
        budget=budget,
        outcome=solution.outcome,
        sentence=cause(
            spectral.condition,
            rate_limit,
            steps_needed,
            problem.excess_at_zero,
            trained,
            rounding=(str(rows.dtype).removeprefix("torch."), problem.rounding_floor),
            obstacle=blocked,
        ),
        diagnosis=with_measured_runs(diagnosis, trained),
        notes=rows.notes + casts(rows),
        interrupted=any(row.stopped_because == INTERRUPTED for row in trained),
    )


def _choose(names: Sequence[str]) -> list[Contender]:
    names = [names] if isinstance(names, str) else names
    known = {contender.name: contender for contender in CONTENDERS}
    for name in names:
        if name not in known:
            raise InputError(f"unknown optimizer {name!r}; choose from: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


def _check_layer(layer: nn.Linear, rows: Rows) -> None:
    check_linear(layer)
    check_finite(layer)
    if (layer.in_features, layer.out_features) != (rows.n_features, rows.n_targets):
        raise InputError(
            f"layer maps {plural(layer.in_features, 'feature')} to {plural(layer.out_features, 'target')}, but the "
            f"data have {rows.n_features} and {rows.n_targets}."
        )


def _steps_needed(spectrum: Spectrum) -> float:
    """Steps of gradient descent at a safe step; they do not depend on the unit of X, which might overflow."""
    values = spectrum.singular_values
    scaled = replace(spectrum, singular_values=torch.ldexp(values, -power_of_two_exponents(values[:1])))
    limit = scaled.learning_rate_limit
    return gradient_descent_steps(scaled, SAFETY * (limit if math.isfinite(limit) else 1.0), EXCESS)


def _fresh_layer(rows: Rows, bias: bool, start: nn.Linear | None, seed: int) -> nn.Linear:
    """A new layer; its own generator leaves the global one alone and draws the same numbers."""
    # Made on the meta device, where nothing is drawn from the global generator.
    layer = nn.Linear(rows.n_features, rows.n_targets, bias=bias, dtype=rows.dtype, device="meta")
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
