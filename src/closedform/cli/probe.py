"""``closedform probe``: a certified linear probe of features in files."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.options import JsonFile, Memory, PageFile, Quiet, Weight

if TYPE_CHECKING:
    from closedform.cli.output import OutputFile, Screen
    from closedform.probing.result import Probe
    from closedform.rows.source import Source

__all__ = ["probe_command"]

_IMAGES = (".png", ".svg", ".pdf")
_Features = Annotated[
    list[str],
    typer.Argument(
        metavar="FEATURES...",
        help="Files of features, FILE::KEY where one holds several tables. Several are layers where each has a row for "
        "every label (one probe each), and shards of one table where their rows add up to that.",
    ),
]
_Labels = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="FILE|COLUMN",
        help="Integers, words, one-hot rows or numbers: FILE, FILE::KEY, a text file with one label a line, or a "
        "column of FEATURES, which are then its other columns.",
    ),
]
_TestFeatures = Annotated[
    list[str] | None,
    typer.Option(
        "--test-features", metavar="FILE", help="Features to judge by, as FEATURES; repeat for several files."
    ),
]
_TestLabels = Annotated[str | None, typer.Option("--test-labels", metavar="FILE", help="Their labels, as --labels.")]
_Task = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="classification or regression; found out by default.")
]
_Share = Annotated[
    float, typer.Option("--test-size", metavar="PART", help="Part of each class held out where no test rows are given.")
]
_ClassWeight = Annotated[
    str | None, typer.Option("--class-weight", metavar="NAME", help="balanced: every class has the same total weight.")
]
_Criterion = Annotated[
    str | None,
    typer.Option("--criterion", metavar="NAME", help="squared (the default) or cross-entropy: logistic regression."),
]
_Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="Whether the layer has a bias.")]
_L2 = Annotated[
    str | None,
    typer.Option("--l2", metavar="A,B", help="Ridge strengths to try; a grid from the spectrum by default."),
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the choice of the rows that are held out.")]
_Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE", help="Draw the layers, or the ridge path of one: .png, .svg or .pdf."),
]
_Layer = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="Where the certified nn.Linear goes: .safetensors (weight, bias)."),
]


def probe_command(
    context: typer.Context,
    features: _Features,
    labels: _Labels,
    test_features: _TestFeatures = None,
    test_labels: _TestLabels = None,
    task: _Task = None,
    criterion: _Criterion = None,
    l2: _L2 = None,
    bias: _Bias = True,
    class_weight: _ClassWeight = None,
    weight: Weight = None,
    test_size: _Share = 0.25,
    seed: _Seed = 0,
    out: _Layer = None,
    plot: _Plot = None,
    html: PageFile = None,
    memory: Memory = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Fit a linear probe exactly, its ridge strength by leave-one-out, and judge it on rows it has not seen.

    Exit status 0 only if every fit is certified, as stored.
    """  # noqa: DOC501  # typer prints it as the help of the command
    from closedform.cli.output import OutputFile, Screen, json_output, refuse_overwriting
    from closedform.cli.record import json_record
    from closedform.cli.showing import page_output, write_page
    from closedform.probing.entry import probe

    layer = None if out is None else OutputFile(out, "--out", (".safetensors",))
    image = None if plot is None else OutputFile(plot, "--plot", _IMAGES)
    page, data = page_output(html), json_output(json)
    read = (*features, labels, *(test_features or ()), test_labels, weight)
    refuse_overwriting(read, layer, image, page, data)
    _check_packages(layer, image)

    screen = Screen.of(quiet, data)
    result = probe(
        _one_or_many(features),
        labels,
        test_features=None if not test_features else _one_or_many(test_features),
        test_labels=test_labels,
        task=task,
        criterion=criterion,
        l2=None if l2 is None else _strengths(l2),
        bias=bias,
        class_weight=class_weight,
        sample_weight=weight,
        test_size=test_size,
        seed=seed,
        progress=False if quiet else None,
    )
    screen.show(result.summary())
    if page is not None:
        write_page(result.page(), page, screen)
    if image is not None:
        _write_plot(result, image, screen)
    if layer is not None:
        _write_layer(result, layer, screen)
    if data is not None:
        tables, keys = _what_was_read(features, labels, task)
        screen.write(data, json_record(context, result.to_dict(), data=tables, keys=keys))
    raise typer.Exit(0 if result.certified else 1)


def _check_packages(layer: OutputFile | None, image: OutputFile | None) -> None:
    """Refuse outputs whose packages are missing, before anything is computed.

    Raises:
        MissingExtraError: one is.
    """
    from closedform.words.errors import MissingExtraError

    if layer is not None and find_spec("safetensors") is None:
        raise MissingExtraError("safetensors", "files", "--out")
    if image is not None and find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report", "--plot")


def _what_was_read(features: list[str], labels: str, task: str | None) -> tuple[list[Source], dict[str, str]]:
    """Return the tables of features and the labels, and where each is from: the features without a column of labels."""
    import torch

    from closedform.files import open_source, parsed_once, split_table
    from closedform.probing.labels import read_labels
    from closedform.rows.tensors import TensorSource

    with parsed_once():
        chosen, column, *_ = split_table(_one_or_many(features), labels)
        specs = [chosen] if isinstance(chosen, str) else list(chosen)
        tables = [open_source(spec) for spec in specs]
        known = read_labels(column, "labels", task)
    values = known.values
    if values is None:
        words = "\n".join(map(str, known.names.tolist()))
        values = torch.frombuffer(bytearray(words.encode()), dtype=torch.uint8)
    names = ["X"] if len(specs) == 1 else [f"X[{place}]" for place in range(len(specs))]
    keys = dict(zip(names, specs, strict=True))
    return [*tables, TensorSource(values, "labels")], {**keys, "labels": column}


def _one_or_many(files: list[str]) -> str | list[str]:
    return files[0] if len(files) == 1 else files


def _strengths(text: str) -> list[float]:
    """Return the strengths of a list with commas.

    Raises:
        InputError: something else.
    """
    from closedform.words.errors import InputError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--l2 {text}: give numbers separated by commas, such as 0.1,1,10.") from error


def _write_plot(result: Probe, image: OutputFile, screen: Screen) -> None:
    from closedform.report.figure import draw_image

    screen.write(image, draw_image(result.chart(), image.suffix.removeprefix(".")))


def _write_layer(result: Probe, output: OutputFile, screen: Screen) -> None:
    from safetensors.torch import save

    from closedform.words.json_values import json_text

    tensors = {name: tensor.contiguous().cpu() for name, tensor in result.head().state_dict().items()}
    notes = {"format": "pt", "outcome": result.solution.outcome.name.lower(), "layer": result.best.name}
    screen.write(output, save(tensors, metadata={**notes, "classes": json_text(result.classes)}))
