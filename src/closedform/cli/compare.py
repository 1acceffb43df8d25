"""``closedform compare``: optimizers beside the closed form, on the user's own file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.options import (
    L2,
    Bias,
    Budget,
    CriterionName,
    Features,
    Files,
    JsonFile,
    Memory,
    PageFile,
    PlotFile,
    Quiet,
    Seed,
    Targets,
    TestFeatures,
    TestTargets,
    Weight,
)

if TYPE_CHECKING:
    from closedform.cli.output import OutputFile, Screen
    from closedform.comparison.criteria.results import CriterionComparison
    from closedform.comparison.results import Comparison

__all__ = ["compare_command", "finish", "plot_output", "waited"]

_IMAGES = (".png", ".svg", ".pdf")

_Optimizers = Annotated[
    str | None,
    typer.Option(
        "--optimizers",
        metavar="A,B",
        help="Out of sgd, momentum, nesterov, adam, lbfgs, lbfgs strong wolfe, rls, separated by commas; all of "
        "them by default.",
    ),
]


def compare_command(
    context: typer.Context,
    files: Files,
    x: Features = None,
    y: Targets = None,
    x_test: TestFeatures = None,
    y_test: TestTargets = None,
    weight: Weight = None,
    bias: Bias = False,
    criterion: CriterionName = None,
    l2: L2 = 0.0,
    optimizers: _Optimizers = None,
    budget: Budget = 30.0,
    seed: Seed = 0,
    plot: PlotFile = None,
    html: PageFile = None,
    memory: Memory = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Train the layer with real optimizers, and set what they reach beside the closed form.

    The keys are found in FILE where they are not given. Ctrl-C while training prints what there is.
    """
    from closedform.cli.criteria import checked_criterion
    from closedform.cli.output import Screen, json_output, refuse_overwriting
    from closedform.cli.record import json_record
    from closedform.cli.showing import page_output, write_page
    from closedform.cli.sources import named_files, open_tables
    from closedform.comparison.entry import compare_after

    file = named_files(files)
    image = plot_output(plot)
    page = page_output(html)
    data = json_output(json)
    refuse_overwriting((file, x, y, x_test, y_test, weight), image, page, data)
    names = _named(optimizers)

    screen = Screen.of(quiet, data)
    tables = open_tables(file, screen, x=x, y=y, x_test=x_test, y_test=y_test, weight=weight)
    comparison = compare_after(
        waited(context),
        tables.X,
        tables.Y,
        tables.X_test,
        tables.Y_test,
        bias=bias,
        sample_weight=tables.weight,
        criterion=checked_criterion(criterion),
        l2=l2,
        optimizers=names,
        budget=budget,
        seed=seed,
        progress=False if quiet else None,
    )
    screen.show(comparison.summary())
    if page is not None:
        write_page(comparison.page(), page, screen)
    if data is not None:
        screen.write(data, json_record(context, comparison.to_dict(), tables=tables))
    finish(comparison, image, screen)


def waited(context: typer.Context) -> float:
    """Return the seconds since the command was called; 0 where it was called from Python."""
    return 0.0 if context.obj is None else time.perf_counter() - float(context.obj)


def _named(optimizers: str | None) -> tuple[str, ...]:
    """Return the optimizers that ``--optimizers`` names, all of them without it.

    Raises:
        InputError: it names none.
    """
    from closedform.comparison.entry import OPTIMIZERS
    from closedform.words.errors import InputError

    names = OPTIMIZERS if optimizers is None else tuple(filter(None, map(str.strip, optimizers.split(","))))
    if not names:
        raise InputError(f"--optimizers names none; choose from: {', '.join(OPTIMIZERS)}.")
    return names


def plot_output(path: str | None) -> OutputFile | None:
    """Check the path of a drawing, and that it can be drawn, before anything is computed.

    Raises:
        InputError: a path of another ending, or in a folder that does not exist.
        MissingExtraError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    from closedform.cli.output import OutputFile
    from closedform.words.errors import MissingExtraError

    if path is None:
        return None
    output = OutputFile(path, "--plot", _IMAGES)
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report", "--plot")
    return output


def finish(comparison: Comparison | CriterionComparison, image: OutputFile | None, screen: Screen) -> None:
    """Write the plot and exit: 0 certified, 1 not certified, 130 interrupted.

    Raises:
        typer.Exit: always, with that status.
    """
    if image is not None:
        from closedform.report.figure import draw_image

        screen.write(image, draw_image(comparison.chart(), image.suffix.removeprefix(".")))
    if comparison.interrupted:
        typer.echo("interrupted: the table holds what there was by then", err=True)
        raise typer.Exit(130)
    raise typer.Exit(0 if comparison.outcome.certified else 1)
