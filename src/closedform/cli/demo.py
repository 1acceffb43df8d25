"""``closedform demo``: the whole story on packaged data, without a file and without a network."""

from __future__ import annotations

import typer

from closedform.cli.compare import finish, plot_output, waited
from closedform.cli.options import Budget, JsonFile, PlotFile, Quiet

__all__ = ["demo_command"]

_PYTHON = """\
import closedform as cf
sol = cf.solve(X, Y)          # the exact minimiser, with a certificate: print(sol)
print(cf.compare(X, Y, X_test, Y_test, budget=15))    # this page"""


def demo_command(
    context: typer.Context,
    budget: Budget = 15.0,
    plot: PlotFile = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Compare on real data that comes with scikit-learn: a kernel without regularisation."""
    from closedform.cli.output import Screen, json_output, refuse_overwriting
    from closedform.cli.record import json_record
    from closedform.comparison.entry import compare_after
    from closedform.files.example import kernel_example
    from closedform.rows.tensors import TensorSource

    image = plot_output(plot)
    data = json_output(json)
    refuse_overwriting((), image, data)
    screen = Screen.of(quiet, data)
    example = kernel_example()
    screen.say(example.sentence)
    tables = (example.X, example.Y, example.X_test, example.Y_test)
    comparison = compare_after(waited(context), *tables, budget=budget, progress=False if quiet else None)
    screen.show(comparison.summary())
    screen.line(f"The same in Python:\n\n{_PYTHON}\n")
    screen.line("On your own data:  closedform compare FILE --plot loss.png")
    if data is not None:
        sources = [TensorSource(table, "example") for table in tables]
        screen.write(data, json_record(context, comparison.to_dict(), data=sources))
    finish(comparison, image, screen)
