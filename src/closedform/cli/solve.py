"""``closedform solve``: the certified weights of a file's table, as a safetensors file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from closedform.cli.options import Bias, Features, File, JsonFile, Targets, Weight

__all__ = ["solve_command"]

#: Weights printed with --digits.
_LINES = 20


def solve_command(
    file: File,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where the weights go: .safetensors, keys as in nn.Linear (weight, bias)."),
    ] = None,
    x: Features = None,
    y: Targets = None,
    weight: Weight = None,
    bias: Bias = False,
    l2: Annotated[float, typer.Option(help="Ridge: sum of squared errors + l2 * ||weight||^2.")] = 0.0,
    digits: Annotated[
        int | None,
        typer.Option(help="Correct digits wanted in every weight, 1 to 15; prints each with the digits proven."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Solve for the layer, print its certificate, and write its weights."""
    from itertools import islice

    from closedform.cli.certainty import certain_lines
    from closedform.cli.output import OutputFile, json_bytes, print_wrapped, refuse_overwriting
    from closedform.cli.sources import open_tables
    from closedform.fit.orchestrator import solve
    from closedform.words.errors import MissingExtraError

    weights = None if out is None else OutputFile(out, "--out", (".safetensors",))
    data = None if json is None else OutputFile(json, "--json")
    refuse_overwriting((file, x, y, weight), weights, data)
    if weights is not None and find_spec("safetensors") is None:
        raise MissingExtraError("safetensors", "files", "--out")
    tables = open_tables(file, x=x, y=y, weight=weight)
    solution = solve(tables.X, tables.Y, bias=bias, l2=l2, sample_weight=tables.weight, digits=digits)
    print_wrapped(str(solution))
    if digits is not None:
        print_wrapped("\nDigits before a parenthesis are certain, up to one unit of the last; those inside are not:")
        lines = certain_lines(solution)
        for line in islice(lines, _LINES):
            typer.echo(line)
        rest = sum(1 for _ in lines)
        if rest:
            typer.echo(f"... and {rest:,} more")
    if weights is not None:
        from safetensors.torch import save

        tensors = {"weight": solution.weight.contiguous().cpu()}
        if solution.bias is not None:
            tensors["bias"] = solution.bias.contiguous().cpu()
        weights.write(save(tensors, metadata={"format": "pt", "outcome": solution.outcome.name.lower()}))
    elif digits is None:
        print_wrapped("The weights were not written: --out FILE.safetensors writes them, --digits 12 prints them.")
    if data is not None:
        data.write(json_bytes(solution.to_dict()))
    raise typer.Exit(0 if solution.outcome.certified else 1)
