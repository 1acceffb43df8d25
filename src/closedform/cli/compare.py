"""``closedform compare``: optimizers beside the closed form, on the user's own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.options import (
    Bias,
    Budget,
    Features,
    File,
    JsonFile,
    PlotFile,
    Seed,
    Targets,
    Weight,
)

if TYPE_CHECKING:
    from closedform.cli.output import OutputFile
    from closedform.comparison.results import Comparison

__all__ = ["compare_command", "finish", "plot_output"]

_IMAGES = (".png", ".svg", ".pdf")
_KEY = "a key of FILE, another FILE, or FILE::KEY"


def compare_command(
    file: File,
    x: Features = None,
    y: Targets = None,
    x_test: Annotated[str | None, typer.Option(metavar="KEY", help=f"Test features: {_KEY}.")] = None,
    y_test: Annotated[str | None, typer.Option(metavar="KEY", help=f"Test targets: {_KEY}.")] = None,
    weight: Weight = None,
    bias: Bias = False,
    optimizers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Out of sgd, momentum, nesterov, adam, lbfgs, lbfgs strong wolfe, rls, separated by commas; all of "
            "them by default.",
        ),
    ] = None,
    budget: Budget = 30.0,
    seed: Seed = 0,
    plot: PlotFile = None,
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the report: one page, offline, measured curves on the forecast."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Train the layer with real optimizers, and set what they reach beside the closed form.

    The keys are found in FILE where they are not given. Ctrl-C while training prints what there is.
    """
    from closedform.cli.diagnose import page_output
    from closedform.cli.output import OutputFile, json_bytes, refuse_overwriting
    from closedform.cli.showing import show, write_page
    from closedform.cli.sources import open_tables
    from closedform.comparison.entry import OPTIMIZERS, compare
    from closedform.words.errors import InputError

    image = plot_output(plot)
    page = page_output(html)
    data = None if json is None else OutputFile(json, "--json")
    refuse_overwriting((file, x, y, x_test, y_test, weight), image, page, data)
    names = OPTIMIZERS if optimizers is None else tuple(filter(None, map(str.strip, optimizers.split(","))))
    if not names:
        raise InputError(f"--optimizers names none; choose from: {', '.join(OPTIMIZERS)}.")
    tables = open_tables(file, x=x, y=y, x_test=x_test, y_test=y_test, weight=weight)
    comparison = compare(
        tables.X,
        tables.Y,
        tables.X_test,
        tables.Y_test,
        bias=bias,
        sample_weight=tables.weight,
        optimizers=names,
        budget=budget,
        seed=seed,
    )
    show(comparison)
    if page is not None:
        write_page(comparison, page)
    if data is not None:
        data.write(json_bytes(comparison.to_dict()))
    finish(comparison, image)


def plot_output(path: str | None) -> OutputFile | None:
    """Check the path of a drawing, and that it can be drawn, before anything is computed."""
    from importlib.util import find_spec

    from closedform.cli.output import OutputFile
    from closedform.words.errors import MissingExtraError

    if path is None:
        return None
    output = OutputFile(path, "--plot", _IMAGES)
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report", "--plot")
    return output


def finish(comparison: Comparison, image: OutputFile | None) -> None:
    """Write the plot and exit: 0 certified, 1 not certified, 130 interrupted."""
    if image is not None:
        from closedform.report.figure import draw_image

        image.write(draw_image(comparison.chart(), image.suffix.removeprefix(".")))
    if comparison.interrupted:
        typer.echo("interrupted: the table holds what there was by then", err=True)
        raise typer.Exit(130)
    raise typer.Exit(0 if comparison.outcome.certified else 1)
