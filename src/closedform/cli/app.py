"""The application: its commands, its errors and its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, final

import typer
from typer.core import TyperGroup

from closedform.cli import accuracy, compare, demo, diagnose, machine, probe, solve
from closedform.cli.commands import as_options
from closedform.words.errors import ClosedformError
from closedform.words.text import printable

__all__ = ["app"]

# Typer's later versions carry their own copy of click, so its error class is taken from where it is inherited.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


@final
class _Group(TyperGroup):
    """Turns every expected error into one line on stderr and status 2, and Ctrl-C into 130."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except _UsageError as error:
            status = _fail(error.format_message())
        except ClosedformError as error:
            status = _fail(as_options(str(error)))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            status = _memory_failed()
        except OSError as error:
            status = _output_failed(error)
        if standalone_mode:
            sys.exit(status or 0)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None


def _fail(message: str) -> int:
    typer.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    return 2


def _memory_failed() -> int:
    from closedform.engine.capacity import available_memory

    return _fail(
        f"the memory ran out ({available_memory() / 1e9:.2f} GB are left now); use fewer rows or columns, or a machine "
        "or a limit (ulimit -v, the container's) with more."
    )


def _output_failed(error: OSError) -> int:
    """Report a file system that fails under a command; stdout, which has no file name, may be full or closed."""
    if error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}.")
    # What is left in the buffer would fail once more when Python exits.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # head or less has read enough
        return 128 + 13
    return _fail(f"writing to the standard output failed ({error.strerror}).")


app = typer.Typer(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Put a linear layer at the exact least-squares minimiser, prove it, and see why an optimizer did not.",
)
app.command("compare")(compare.compare_command)
app.command("solve")(solve.solve_command)
app.command("diagnose")(diagnose.diagnose_command)
app.command("probe")(probe.probe_command)
app.command("accuracy")(accuracy.accuracy_command)
app.command("demo")(demo.demo_command)
app.command("show-versions")(machine.show_versions_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"closedform {import_module('closedform').__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
