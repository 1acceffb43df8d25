"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Bias", "Budget", "Features", "File", "JsonFile", "PlotFile", "Seed", "Targets", "Weight"]

_TABLE = "a key of FILE, another FILE, or FILE::KEY"

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="HDF5, .npy, .npz, .safetensors, .parquet, .csv or .pt; or FILE::KEY for the features."
    ),
]
Features = Annotated[str | None, typer.Option("--x", metavar="KEY", help=f"Features: {_TABLE}.")]
Targets = Annotated[str | None, typer.Option("--y", metavar="KEY", help=f"Targets: {_TABLE}.")]
Weight = Annotated[str | None, typer.Option("--weight", metavar="KEY", help=f"Sample weights: {_TABLE}.")]
Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="Whether the layer has a bias.")]
Budget = Annotated[float, typer.Option("--budget", metavar="SECONDS", help="Training time, shared equally.")]
Seed = Annotated[
    int,
    # What torch.manual_seed takes.
    typer.Option("--seed", metavar="N", min=-(2**63), max=2**64 - 1, help="Seed of the starting weights."),
]
PlotFile = Annotated[
    str | None, typer.Option("--plot", metavar="FILE", help="Draw loss against time: .png, .svg or .pdf.")
]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")]
