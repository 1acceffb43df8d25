"""``closedform solve``: the certified weights of a file's table, as a safetensors file."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.options import (
    L2,
    Bias,
    CriterionName,
    Double,
    Features,
    Files,
    JsonFile,
    Kernel,
    Memory,
    Quiet,
    Targets,
    TestFeatures,
    TestTargets,
    Weight,
)

if TYPE_CHECKING:
    from closedform.cli.output import Output, OutputFile, Screen
    from closedform.cli.sources import Tables
    from closedform.fit.solution import Solution
    from closedform.fit.summary import Summary
    from closedform.rows.source import Source

__all__ = ["solve_command"]

#: Weights printed, and once more with --digits.
_LINES = 20
#: Multiplications of a triangle of the rows, made for standard errors alone, that nobody waits for.
_SHORT_WORK = 1e9
#: Numbers of the test rows that are predicted from at a time.
_BLOCK = 1 << 22


_WeightsFile = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="FILE", help="Where the weights go: .safetensors, keys as in nn.Linear (weight, bias)."
    ),
]
_Digits = Annotated[
    int | None,
    typer.Option(
        "--digits",
        metavar="N",
        help="Correct digits wanted in every weight, 1 to 15; prints each with the digits proven.",
    ),
]


def solve_command(
    context: typer.Context,
    files: Files,
    out: _WeightsFile = None,
    x: Features = None,
    y: Targets = None,
    x_test: TestFeatures = None,
    y_test: TestTargets = None,
    weight: Weight = None,
    bias: Bias = False,
    l2: L2 = 0.0,
    kernel: Kernel = False,
    double: Double = False,
    criterion: CriterionName = None,
    digits: _Digits = None,
    memory: Memory = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Solve for the layer, print its certificate and its errors on the test rows, and write its weights.

    The keys are found in FILE where they are not given. Exit status 0 only if certified, as stored. Under torchrun
    each process reads its share of the rows.
    """  # noqa: DOC501  # typer prints it as the help of the command
    from closedform.cli.criteria import checked_criterion, finish_by_criterion
    from closedform.cli.output import OutputFile, Screen, json_output, refuse_overwriting
    from closedform.cli.processes import joined_job
    from closedform.cli.sources import named_files, open_tables
    from closedform.fit.convex import ConvexSolution
    from closedform.fit.orchestrator import solve
    from closedform.words.errors import MissingExtraError

    criterion = checked_criterion(criterion)
    file = named_files(files)

    def outputs() -> tuple[OutputFile | None, Output | None]:
        weights = None if out is None else OutputFile(out, "--out", (".safetensors",))
        data = json_output(json)
        refuse_overwriting((file, x, y, x_test, y_test, weight), weights, data)
        if weights is not None and find_spec("safetensors") is None:
            raise MissingExtraError("safetensors", "files", "--out")
        return weights, data

    with joined_job() as job:
        # Only the first process prints and writes.
        weights, data = job.together(lambda: (None, None) if job.rank else outputs())
        screen = Screen.of(quiet or job.rank > 0, data)
        tables = job.together(
            lambda: open_tables(file, screen, x=x, y=y, x_test=x_test, y_test=y_test, weight=weight, job=job)
        )
        solution = solve(
            _in_float64(tables.X) if double else tables.X,
            tables.Y,
            bias=bias,
            l2=l2,
            sample_weight=tables.weight,
            digits=digits,
            criterion=criterion,
            kernel=kernel,
            group=job.group,
            progress=False if screen.quiet else None,
        )
        if isinstance(solution, ConvexSolution):
            finish_by_criterion(solution, tables, context, screen, weights=weights, data=data)
        job.together(lambda: None if job.rank else _finish(solution, tables, context, screen, weights, data))
    raise typer.Exit(0 if solution.certified else 1)


def _in_float64(table: Source) -> Source:
    import torch

    from closedform.rows.tensors import FloatSource

    return table if table.dtype == torch.float64 else FloatSource(table)


def _finish(
    solution: Solution,
    tables: Tables,
    context: typer.Context,
    screen: Screen,
    weights: OutputFile | None,
    data: Output | None,
) -> None:
    """Print what was found and write the files."""
    from closedform.cli.output import write_weights
    from closedform.cli.record import json_record

    digits = context.params["digits"]
    test = _test_errors(solution, tables)
    _print_solution(solution, tables, test, screen)
    if digits is not None:
        _print_digits(solution, screen)

    if weights is not None:
        write_weights(solution, weights, screen)
        _say_narrower(solution, tables, context, screen)
    elif digits is None:
        screen.say("The weights were not written: --out FILE.safetensors writes them, --digits 12 prints them.")
    if data is not None:
        screen.write(data, json_record(context, {**solution.to_dict(), "test": test}, tables=tables))


def _print_solution(solution: Solution, tables: Tables, test: dict[str, float] | None, screen: Screen) -> None:
    from closedform.cli.commands import as_options

    screen.say(as_options(str(solution)))
    screen.line()
    screen.show(_summary(solution, tables).body(_LINES))
    screen.line()
    if test is not None:
        screen.say(f"test MSE {test['mse']:.6g}, test MAE {test['mae']:.6g} on {test['rows']:,} rows")


def _summary(solution: Solution, tables: Tables) -> Summary:
    """Return the summary, with another pass over the rows where its standard errors need one and it is short."""
    summary = solution.summary()
    needs_rows = bool(summary.coefficients.standard_error.isnan().any())
    if needs_rows and tables.parts == 1 and solution.rows * solution.weight.shape[1] ** 2 <= _SHORT_WORK:
        return solution.summary(tables.X, tables.weight)
    return summary


def _print_digits(solution: Solution, screen: Screen) -> None:
    from closedform.cli.certainty import certain_lines

    screen.say("\nDigits before a parenthesis are certain, up to one unit of the last; those inside are not:")
    lines = certain_lines(solution)
    for line in islice(lines, _LINES):
        screen.line(line)
    rest = sum(1 for _ in lines)
    if rest:
        screen.line(f"... and {rest:,} more")


def _say_narrower(solution: Solution, tables: Tables, context: typer.Context, screen: Screen) -> None:
    """Say what becomes of float64 weights in a layer of torch's usual dtype, where that loses what was certified."""
    import torch

    from closedform.fit.kernels import kernel_stored_as
    from closedform.fit.storage import stored_as
    from closedform.fit.weights import Weights

    if solution.stored is not None and solution.stored.lost:
        screen.aside("To write what was certified, in float64: --double.")
    if solution.weight.dtype != torch.float64 or not solution.certified or tables.parts > 1:
        return
    l2, rows = context.params["l2"], (tables.X, tables.Y, tables.weight)
    if context.params["kernel"]:
        stored = kernel_stored_as(solution.weight, *rows, torch.float32, l2=l2)
    else:
        stored = stored_as(Weights(solution.weight, solution.bias), *rows, torch.float32, l2=l2)
    if stored.lost:
        screen.aside(f"The file holds float64 weights. Load them into a float64 layer: {stored}.")


def _test_errors(solution: Solution, tables: Tables) -> dict[str, float] | None:
    """Return rows, mean squared and mean absolute error on the test rows, read block by block; None without any.

    Raises:
        InputError: the test rows do not have the features or the targets of the layer.
    """
    import torch

    from closedform.words.errors import InputError
    from closedform.words.numbers import plural

    if tables.X_test is None or tables.Y_test is None:
        return None
    X, Y = tables.X_test, tables.Y_test
    rows, outputs = X.shape[0], solution.weight.shape[0]
    numbers, count = torch.Size(X.shape[1:]).numel(), torch.Size(Y.shape).numel()
    if (
        X.shape[-1] != solution.weight.shape[1]
        or torch.Size(Y.shape).numel() != torch.Size(X.shape[:-1]).numel() * outputs
    ):
        raise InputError(
            f"the test rows are X {X.shape} and Y {Y.shape}, which do not fit "
            f"{plural(solution.weight.shape[1], 'feature')} and {plural(outputs, 'target')}; name others "
            "with --x-test and --y-test."
        )

    squares = absolute = 0.0
    step = max(1, _BLOCK // max(1, numbers))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        errors = solution.predict(X.read(start, stop)).to(torch.float64).reshape(-1)
        errors = errors - Y.read(start, stop).to(torch.float64).reshape(-1)
        squares += float(errors.square().sum())
        absolute += float(errors.abs().sum())
    return {"rows": rows, "mse": squares / count, "mae": absolute / count}
