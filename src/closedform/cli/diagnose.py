"""``closedform diagnose``: why an optimizer does not get there, on the user's own file."""

from __future__ import annotations

import shlex
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from closedform.cli.fresh import OPTIMIZERS
from closedform.cli.options import (
    L2,
    Bias,
    CriterionName,
    Features,
    Files,
    JsonFile,
    Memory,
    PageFile,
    Quiet,
    Seed,
    Targets,
    Weight,
)

if TYPE_CHECKING:
    from torch import nn

    from closedform.cli.output import Output, OutputFile, Screen
    from closedform.cli.sources import Tables
    from closedform.explain.diagnosis import Diagnosis
    from closedform.explain.readers.optimizers import OptimizerReading

__all__ = ["diagnose_command"]


class FailOn(StrEnum):
    """From which severity of a finding on the exit status is 1."""

    ERROR = "error"
    WARNING = "warning"


_OptimizerName = Annotated[
    str | None,
    typer.Option("--optimizer", metavar="NAME", help=f"What the layer is trained with: {', '.join(OPTIMIZERS)}."),
]
_LearningRate = Annotated[
    float | None,
    typer.Option("--lr", metavar="NUMBER", help="Its learning rate, on MSELoss(); torch's own by default."),
]
_Momentum = Annotated[float | None, typer.Option("--momentum", metavar="NUMBER", help="Momentum of sgd.")]
_Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help="Steps that the run has.")]
_BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Rows of a batch; all of them by default.")
]
_FailOn = Annotated[
    FailOn | None,
    typer.Option("--fail-on", help="Exit with status 1 where a finding is that bad or worse."),
]


def diagnose_command(
    context: typer.Context,
    files: Files,
    x: Features = None,
    y: Targets = None,
    weight: Weight = None,
    bias: Bias = False,
    l2: L2 = 0.0,
    criterion: CriterionName = None,
    optimizer: _OptimizerName = None,
    lr: _LearningRate = None,
    momentum: _Momentum = None,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's momentum.")] = False,
    steps: _Steps = None,
    batch_size: _BatchSize = None,
    seed: Seed = 0,
    fail_on: _FailOn = None,
    html: PageFile = None,
    memory: Memory = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Say why an optimizer does or does not get to the minimiser, with numbers measured on the data.

    With --lr or --optimizer the run of a fresh nn.Linear under that optimizer is judged. With --criterion: whether
    there is a minimiser, what it is worth beside that of least squares, and how steep the loss is there.

    The keys are found in FILE where they are not given. Exit status 0, unless --fail-on asks for 1.
    """  # noqa: DOC501  # typer prints it as the help of the command
    from closedform.cli.criteria import checked_criterion, finish_diagnosis
    from closedform.cli.output import Screen, json_output, refuse_overwriting
    from closedform.cli.showing import page_output
    from closedform.cli.sources import named_files, open_tables
    from closedform.explain.entry import diagnose_for
    from closedform.explain.setting import Command

    file = named_files(files)
    page, data = page_output(html), json_output(json)
    refuse_overwriting((file, x, y, weight), page, data)
    name = _optimizer_name(optimizer, lr, momentum, nesterov)
    criterion = checked_criterion(criterion)
    screen = Screen.of(quiet, data)
    tables = open_tables(file, screen, x=x, y=y, weight=weight, test_rows=False)
    if criterion not in (None, "squared", "mse"):
        finish_diagnosis(tables, context, screen, None if name is None else (name, lr, momentum, nesterov), page, data)
    model, trained = (None, None) if name is None else _trained(name, tables, bias, seed, lr, momentum, nesterov)
    diagnosis = diagnose_for(
        Command(shlex.join([*tables.file.split("\n"), *tables.options])),
        tables.X,
        tables.Y,
        bias=bias,
        l2=l2,
        sample_weight=tables.weight,
        model=model,
        optimizer=trained,
        steps=steps,
        batch_size=batch_size,
        feature_names=tables.X.columns,
    )
    _finish(diagnosis, tables, context, screen, page, data)
    raise typer.Exit(int(fail_on is not None and _is_as_bad(diagnosis, fail_on)))


def _finish(
    diagnosis: Diagnosis,
    tables: Tables,
    context: typer.Context,
    screen: Screen,
    page: OutputFile | None,
    data: Output | None,
) -> None:
    """Print what was found, with commands for remedies, and write the files."""
    from closedform.cli.commands import command_for, with_commands
    from closedform.cli.record import json_record
    from closedform.cli.showing import write_page

    asked = context.params
    command = partial(
        command_for,
        file=tables.file,
        options=[
            *tables.options,
            *(["--bias"] if asked["bias"] else []),
            *(["--l2", f"{asked['l2']:g}"] if asked["l2"] else []),
        ],
    )
    screen.show(with_commands(diagnosis.summary(), command))
    if page is not None:
        write_page(with_commands(diagnosis.page(), command), page, screen)
    if data is not None:
        commands = {finding.name: command(finding.remedy) for finding in diagnosis.findings}
        screen.write(data, json_record(context, {**diagnosis.to_dict(), "commands": commands}, tables=tables))


def _is_as_bad(diagnosis: Diagnosis, limit: FailOn) -> bool:
    """Whether a finding is as severe as the limit, or more."""
    counted = {FailOn.ERROR: {"error"}, FailOn.WARNING: {"error", "warning"}}[limit]
    return any(finding.severity.value in counted for finding in diagnosis.findings)


def _optimizer_name(optimizer: str | None, lr: float | None, momentum: float | None, nesterov: bool) -> str | None:
    """Check the settings; None where there are none.

    Raises:
        InputError: an optimizer that is not known, a setting that it does not have, or a number out of range.
    """
    from closedform.words.errors import InputError

    if optimizer is None and lr is None and momentum is None and not nesterov:
        return None
    name = "sgd" if optimizer is None else optimizer.lower()
    if name not in OPTIMIZERS:
        raise InputError(f"unknown optimizer {optimizer!r}; choose from: {', '.join(OPTIMIZERS)}.")
    if name != "sgd" and (momentum is not None or nesterov):
        raise InputError(f"--momentum and --nesterov belong to sgd, not to {name}; drop them.")
    if nesterov and not momentum:
        raise InputError("--nesterov needs a --momentum above 0, such as --momentum 0.9.")
    if momentum is not None and not 0 <= momentum < 1:
        raise InputError(f"--momentum {momentum} must be at least 0 and less than 1.")
    if lr is not None and not 0 <= lr < float("inf"):
        raise InputError(f"--lr {lr} must be a finite number and not negative.")
    return name


def _trained(
    name: str, tables: Tables, bias: bool, seed: int, lr: float | None, momentum: float | None, nesterov: bool
) -> tuple[nn.Module, OptimizerReading]:
    """Return a fresh model for the tables, and the optimizer that trains it."""
    from closedform.cli.fresh import as_model, fresh_layer, optimizer_class, optimizer_settings
    from closedform.explain.readers.fresh import fresh_optimizer

    layer = fresh_layer(tables.X, tables.Y, bias, seed)
    trained = fresh_optimizer(optimizer_class(name), **optimizer_settings(lr, momentum, nesterov))
    return as_model(layer, tables.Y), trained
