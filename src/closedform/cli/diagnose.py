"""``closedform diagnose``: why an optimizer does not get there, on the user's own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.options import Bias, Features, File, JsonFile, Seed, Targets, Weight

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from closedform.cli.output import OutputFile
    from closedform.explain.readers.optimizers import OptimizerReading
    from closedform.rows import Source

__all__ = ["as_model", "diagnose_command", "fresh_layer", "page_output"]

#: The optimizers, with the learning rates that torch.optim gives them.
_OPTIMIZERS = {"sgd": 1e-3, "adam": 1e-3, "lbfgs": 1.0}


def diagnose_command(
    file: File,
    x: Features = None,
    y: Targets = None,
    weight: Weight = None,
    bias: Bias = False,
    l2: Annotated[float, typer.Option(help="Ridge: sum of squared errors + l2 * ||weight||^2.")] = 0.0,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"What the layer is trained with: {', '.join(_OPTIMIZERS)}."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Its learning rate, on MSELoss(); torch's own by default.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of sgd.")] = None,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's momentum.")] = False,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps that the run has.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Rows of a batch; all of them by default.")
    ] = None,
    seed: Seed = 0,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report: one page, offline.")] = None,
    json: JsonFile = None,
) -> None:
    """Say why an optimizer does or does not get to the minimiser, with numbers measured on the data.

    With --lr or --optimizer the run of a fresh nn.Linear under that optimizer is judged.

    The keys are found in FILE where they are not given.
    """
    from closedform.cli.output import OutputFile, json_bytes, refuse_overwriting
    from closedform.cli.showing import show, write_page
    from closedform.cli.sources import open_tables
    from closedform.explain.entry import diagnose

    page = page_output(html)
    data = None if json is None else OutputFile(json, "--json")
    refuse_overwriting((file, x, y, weight), page, data)
    name = _optimizer_name(optimizer, lr, momentum, nesterov)
    tables = open_tables(file, x=x, y=y, weight=weight)
    model = trained = None
    if name is not None:
        layer = fresh_layer(tables.X, tables.Y, bias, seed)
        model = as_model(layer, tables.Y)
        trained = _optimizer(name, layer, lr, momentum, nesterov)
    diagnosis = diagnose(
        tables.X,
        tables.Y,
        bias=bias,
        l2=l2,
        sample_weight=tables.weight,
        model=model,
        optimizer=trained,
        steps=steps,
        batch_size=batch_size,
    )
    show(diagnosis)
    if page is not None:
        write_page(diagnosis, page)
    if data is not None:
        data.write(json_bytes(diagnosis.to_dict()))


def page_output(path: str | None) -> OutputFile | None:
    """Check the path of a page, and that it can be rendered, before anything is computed."""
    from importlib.util import find_spec

    from closedform.cli.output import OutputFile
    from closedform.words.errors import MissingExtraError

    if path is None:
        return None
    output = OutputFile(path, "--html", (".html", ".htm"))
    if find_spec("jinja2") is None:
        raise MissingExtraError("jinja2", "report", "--html")
    return output


def fresh_layer(X: Source, Y: Source, bias: bool, seed: int) -> nn.Linear:
    """Return the layer that ``nn.Linear`` makes after ``torch.manual_seed(seed)``, in the dtype of the features."""
    import torch
    from torch import nn

    # In float16 and bfloat16 no kernel draws the same numbers on every machine, and integers hold no weights.
    dtype = X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, targets = (table.shape[1] if len(table.shape) > 1 else 1 for table in (X, Y))
        return nn.Linear(features, targets, bias=bias, dtype=dtype)


def as_model(layer: nn.Linear, Y: Source) -> nn.Module:
    """Give the layer's output the shape of the targets: a file's ``(rows,)`` is no mistake of a training loop."""
    from torch import nn

    return nn.Sequential(layer, nn.Flatten(0)) if len(Y.shape) == 1 else layer


def _optimizer_name(optimizer: str | None, lr: float | None, momentum: float | None, nesterov: bool) -> str | None:
    """Check the settings; None where there are none."""
    from closedform.words.errors import InputError

    if optimizer is None and lr is None and momentum is None and not nesterov:
        return None
    name = "sgd" if optimizer is None else optimizer.lower()
    if name not in _OPTIMIZERS:
        raise InputError(f"unknown optimizer {optimizer!r}; choose from: {', '.join(_OPTIMIZERS)}.")
    if name != "sgd" and (momentum is not None or nesterov):
        raise InputError(f"--momentum and --nesterov belong to sgd, not to {name}; drop them.")
    if nesterov and not momentum:
        raise InputError("--nesterov needs a --momentum above 0, such as --momentum 0.9.")
    if momentum is not None and not 0 <= momentum < 1:
        raise InputError(f"--momentum {momentum} must be at least 0 and less than 1.")
    if lr is not None and not 0 <= lr < float("inf"):
        raise InputError(f"--lr {lr} must be a finite number and not negative.")
    return name


def _optimizer(
    name: str, layer: nn.Linear, lr: float | None, momentum: float | None, nesterov: bool
) -> Optimizer | OptimizerReading:
    rate = _OPTIMIZERS[name] if lr is None else lr
    if name == "sgd":
        from closedform.explain.readers.optimizers import fresh_sgd

        return fresh_sgd(rate, momentum or 0.0, nesterov)
    from torch.optim import LBFGS, Adam

    return Adam(layer.parameters(), lr=rate) if name == "adam" else LBFGS(layer.parameters(), lr=rate)
