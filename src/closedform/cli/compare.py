"""``closedform compare``: optimizers beside the closed form, on the user's own file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

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
    from closedform.explain.diagnosis import Diagnosis
    from closedform.report import Comparison

__all__ = ["compare_command", "finish", "plot_output", "show"]

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
    from closedform.cli.diagnose import as_model, fresh_layer, page_output
    from closedform.cli.output import OutputFile, json_bytes, refuse_overwriting
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
    # Forecast and runs start from the same weights.
    layer = None if page is None else fresh_layer(tables.X, tables.Y, bias, seed)
    comparison = compare(
        tables.X,
        tables.Y,
        tables.X_test,
        tables.Y_test,
        bias=bias,
        sample_weight=tables.weight,
        optimizers=names,
        budget=budget,
        layer=layer,
        seed=seed,
    )
    show(comparison)
    if page is not None and layer is not None:
        from closedform.explain.entry import diagnose
        from closedform.report import comparison_html

        diagnosis = diagnose(
            tables.X, tables.Y, bias=bias, sample_weight=tables.weight, model=as_model(layer, tables.Y)
        )
        found = {**diagnosis.to_dict(), "forecasts": _same_runs(comparison, diagnosis)}
        page.write(comparison_html(comparison, found).encode())
    if data is not None:
        data.write(json_bytes(comparison.to_dict()))
    finish(comparison, image)


def _same_runs(comparison: Comparison, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Forecast the runs of the comparison that have a closed form, at the steps at which they were measured."""
    from torch import nn
    from torch.optim import SGD

    from closedform.comparison.contenders import CONTENDERS

    goal = diagnosis.facts.goal_excess
    curves = {method.name: method.curve for method in comparison.methods if method.curve}
    forecasts = []
    for contender in CONTENDERS:
        # The settings are those of the optimizer itself, made for a layer that is never trained. By way of the meta
        # device, where nothing is drawn from the global generator.
        layer = nn.Linear(1, 1, device="meta").to_empty(device="cpu")
        optimizer = contender.make(layer, contender.rates(comparison.learning_rate_limit)[0])
        if contender.name not in curves or not isinstance(optimizer, SGD):
            continue
        settings = {key: optimizer.param_groups[0][key] for key in ("lr", "momentum", "nesterov")}
        steps = [point.steps for point in curves[contender.name]]
        curve = diagnosis.forecast("sgd", **settings, steps=steps)
        finite = [excess if math.isfinite(excess) else None for excess in curve.excess.tolist()]
        needed = curve.steps_to(goal)
        forecasts.append(
            {
                **settings,
                "name": contender.name,
                "weight_decay": 0.0,
                "steps": steps,
                "excess": finite,
                "steps_to_goal": needed if math.isfinite(needed) else None,
                "emphasised": False,
                "text": "",
            }
        )
    return forecasts


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


def show(comparison: Comparison) -> None:
    """Print the page on stdout."""
    from rich.console import Console

    from closedform.report.sections import comparison_page
    from closedform.report.terminal import print_page

    print_page(comparison_page(comparison), Console(highlight=False))


def finish(comparison: Comparison, image: OutputFile | None) -> None:
    """Write the plot and exit: 0 certified, 1 not certified, 130 interrupted."""
    if image is not None:
        from closedform.report.figure import draw_comparison

        image.write(draw_comparison(comparison, image.suffix.removeprefix(".")))
    if comparison.interrupted:
        typer.echo("interrupted: the table holds what there was by then", err=True)
        raise typer.Exit(130)
    raise typer.Exit(0 if comparison.outcome.certified else 1)
