"""``closedform demo``: the whole story on packaged data, without a file and without a network."""

from __future__ import annotations

import typer

from closedform.cli.compare import finish, plot_output
from closedform.cli.options import Budget, PlotFile

__all__ = ["demo_command"]

_PYTHON = """\
import closedform as cf
sol = cf.solve(X, Y)          # the exact minimiser, with a certificate: print(sol)
print(cf.compare(X, Y, X_test, Y_test, budget=15))    # this page"""


def demo_command(budget: Budget = 15.0, plot: PlotFile = None) -> None:
    """Compare on real data that comes with scikit-learn: a kernel without regularisation."""
    from closedform.cli.output import print_wrapped
    from closedform.cli.showing import show
    from closedform.comparison.entry import compare
    from closedform.files.example import kernel_example

    image = plot_output(plot)
    example = kernel_example()
    print_wrapped(example.sentence)
    comparison = compare(example.X, example.Y, example.X_test, example.Y_test, budget=budget)
    show(comparison)
    typer.echo(f"The same in Python:\n\n{_PYTHON}\n")
    typer.echo("On your own data:  closedform compare FILE --plot loss.png")
    finish(comparison, image)
