"""What ``closedform solve`` and ``closedform diagnose`` do with ``--criterion``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from closedform.cli.output import Output, OutputFile, Screen
    from closedform.cli.sources import Tables
    from closedform.explain.criteria import CriterionDiagnosis
    from closedform.fit.convex import ConvexSolution
    from closedform.rows.source import Source

__all__ = ["checked_criterion", "finish_by_criterion", "finish_diagnosis"]

#: Test rows that are predicted from at a time.
_ROWS = 4096


def checked_criterion(name: str | None) -> str | None:
    """Return the name of a criterion, or None, before any file is opened.

    Args:
        name: What was given by ``--criterion``.

    Raises:
        InputError: no such criterion.
    """
    from closedform.losses import criterion_by_name

    if name is not None:
        criterion_by_name(name)
    return name


def finish_diagnosis(
    tables: Tables,
    context: typer.Context,
    screen: Screen,
    settings: tuple[str, float | None, float | None, bool] | None,
    page: OutputFile | None,
    data: Output | None,
) -> NoReturn:
    """Say what keeps an optimizer from the minimum of another criterion than squared error, and exit.

    Args:
        tables: What was read.
        context: The command's context.
        screen: Where it is said.
        settings: The optimizer's name, learning rate, momentum and whether it is Nesterov's; None for no optimizer.
        page: Where the page goes, or None.
        data: Where the JSON goes, or None.

    Raises:
        typer.Exit: always; 1 where no minimiser is proven and ``--fail-on`` is given.
    """
    from closedform.cli.record import json_record
    from closedform.cli.showing import write_page

    found = _diagnosis(tables, context, settings)
    screen.show(found.summary())
    if page is not None:
        write_page(found.page(), page, screen)
    if data is not None:
        screen.write(data, json_record(context, found.to_dict(), tables=tables))
    raise typer.Exit(int(context.params["fail_on"] is not None and not found.solution.outcome.certified))


def _diagnosis(
    tables: Tables, context: typer.Context, settings: tuple[str, float | None, float | None, bool] | None
) -> CriterionDiagnosis:
    from torch import nn

    from closedform.cli.fresh import fresh_layer, optimizer_class, optimizer_settings
    from closedform.explain.criteria import diagnose_criterion
    from closedform.losses import criterion_by_name

    asked = context.params
    criterion = criterion_by_name(asked["criterion"])
    layer = trained = None
    if settings is not None:
        one_column = len(tables.Y.shape) == 1 or tables.Y.shape[1] == 1
        labels = isinstance(criterion, nn.CrossEntropyLoss | nn.MultiMarginLoss) and one_column
        outputs = _classes(tables.Y) if labels else None
        layer = fresh_layer(tables.X, tables.Y, asked["bias"], asked["seed"], outputs)
        name, lr, momentum, nesterov = settings
        trained = optimizer_class(name)(layer.parameters(), **optimizer_settings(lr, momentum, nesterov))
    return diagnose_criterion(
        tables.X,
        tables.Y,
        criterion,
        bias=asked["bias"],
        l2=asked["l2"],
        sample_weight=tables.weight,
        model=layer,
        optimizer=trained,
        steps=asked["steps"],
        batch_size=asked["batch_size"],
    )


def _classes(Y: Source) -> int:
    """Return how many classes the labels call for."""
    return 1 + max(int(Y.read(start, min(start + _ROWS, Y.shape[0])).max()) for start in range(0, Y.shape[0], _ROWS))


def finish_by_criterion(
    solution: ConvexSolution,
    tables: Tables,
    context: typer.Context,
    screen: Screen,
    *,
    weights: OutputFile | None,
    data: Output | None,
) -> NoReturn:
    """Print the outcome and the loss on test rows, write weights and JSON, and exit: 0 certified, 1 not.

    Where no minimiser exists no weights are written.

    Args:
        solution: The fit.
        tables: What was read.
        context: The command's context.
        screen: Where it is said.
        weights: Where the weights go, or None.
        data: Where the JSON goes, or None.

    Raises:
        typer.Exit: always, with that status.
    """
    from closedform.cli.output import write_weights
    from closedform.cli.record import json_record

    screen.say(str(solution))
    test = _test_losses(solution, tables, context.params["criterion"])
    if test is not None:
        right = "" if test["accuracy"] is None else f", accuracy {test['accuracy']:.4f}"
        screen.say(f"test loss {test['loss']:.6g}{right} on {test['rows']:,} rows")

    if weights is None:
        screen.say("The weights were not written: --out FILE.safetensors writes them.")
    elif solution.direction is not None:
        screen.aside(f"{weights} was not written: there are no weights at the minimum.")
    else:
        write_weights(solution, weights, screen)
    if data is not None:
        screen.write(data, json_record(context, {**solution.to_dict(), "test": test}, tables=tables))
    raise typer.Exit(0 if solution.certified else 1)


def _test_losses(solution: ConvexSolution, tables: Tables, criterion: str) -> dict[str, Any] | None:
    """Return rows, loss and, for labels, accuracy on the test rows; None without any.

    Raises:
        InputError: the test rows do not have the features or the targets of the layer.
    """
    from closedform.fit.convex import loss_at
    from closedform.fit.weights import Weights
    from closedform.losses import criterion_by_name
    from closedform.rows import as_rows
    from closedform.words.errors import InputError

    if tables.X_test is None or tables.Y_test is None:
        return None
    test = as_rows(tables.X_test, tables.Y_test)
    trained = as_rows(tables.X, tables.Y)
    if (test.n_features, test.n_targets) != (trained.n_features, trained.n_targets):
        raise InputError(
            f"the test rows are X {tables.X_test.shape} and Y {tables.Y_test.shape}, which do not fit those of the "
            f"fit, X {tables.X.shape} and Y {tables.Y.shape}; name others with --x-test and --y-test."
        )
    loss = loss_at(test, criterion_by_name(criterion), Weights(solution.weight, solution.bias))
    return {
        "rows": test.n_rows,
        "loss": loss,
        "accuracy": _accuracy(solution, tables.X_test, tables.Y_test, test.n_targets),
    }


def _accuracy(solution: ConvexSolution, X: Source, Y: Source, targets: int) -> float | None:
    """Return the part of the labels that the largest output names; None where the targets are no labels."""
    if solution.criterion != "CrossEntropyLoss" or targets > 1:
        return None
    right = 0
    for start in range(0, Y.shape[0], _ROWS):
        stop = min(start + _ROWS, Y.shape[0])
        named = solution.predict(X.read(start, stop)).argmax(-1)
        right += int((named.reshape(-1) == Y.read(start, stop).reshape(-1)).sum())
    return right / Y.shape[0]
