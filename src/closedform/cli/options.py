"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from closedform.engine.capacity import limited_memory

__all__ = [
    "L2",
    "Bias",
    "Budget",
    "CriterionName",
    "Double",
    "Features",
    "Files",
    "JsonFile",
    "Kernel",
    "Memory",
    "PageFile",
    "PlotFile",
    "Quiet",
    "Seed",
    "Targets",
    "TestFeatures",
    "TestTargets",
    "Weight",
]

_TABLE = "a key of FILE, another FILE, or FILE::KEY"
#: The least that torch.manual_seed takes.
_SMALLEST_SEED = -(2**63)
#: The most that it takes.
_LARGEST_SEED = 2**64 - 1


def _checked_seed(seed: int) -> int:
    if not _SMALLEST_SEED <= seed <= _LARGEST_SEED:
        raise typer.BadParameter(f"{seed} is not in the range of torch.manual_seed, -2**63 to 2**64 - 1.")
    return seed


def _limit_memory(context: typer.Context, size: str | None) -> str | None:
    """Hold the command to so much memory for as long as it runs.

    Raises:
        BadParameter: this is no size.
    """
    if size is None or context.resilient_parsing:
        return size
    match = re.fullmatch(r"(\d+\.?\d*) ?([KMGT]?)(I?)B?", size.strip().upper())
    if match is None or (match[3] and not match[2]) or not float(match[1]):
        raise typer.BadParameter(f"{size} is no size of memory; give one as 800MB, 1.5GB or 2GiB.")
    unit = (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " ")
    context.with_resource(limited_memory(int(float(match[1]) * unit)))
    return size


Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="HDF5, .npy, .npz, .safetensors, .parquet, .arrow, .csv, .mat, .zarr or .pt; FILE::KEY for the features. "
        "Several files, a pattern in quotes ('emb_*.npy') or a folder of .parquet are one table.",
    ),
]
Features = Annotated[str | None, typer.Option("--x", metavar="KEY", help=f"Features: {_TABLE}.")]
Targets = Annotated[
    str | None, typer.Option("--y", metavar="KEY", help=f"Targets: {_TABLE}; or columns of FILE: NAME, -1.")
]
TestFeatures = Annotated[str | None, typer.Option("--x-test", metavar="KEY", help=f"Test features: {_TABLE}.")]
TestTargets = Annotated[str | None, typer.Option("--y-test", metavar="KEY", help=f"Test targets: {_TABLE}.")]
Weight = Annotated[str | None, typer.Option("--weight", metavar="KEY", help=f"Sample weights: {_TABLE}.")]
Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="Whether the layer has a bias.")]
L2 = Annotated[float, typer.Option("--l2", metavar="NUMBER", help="Ridge: sum of squared errors + l2 * ||weight||^2.")]
Double = Annotated[
    bool, typer.Option("--double", help="Weights in float64, where the features are stored in a narrower type.")
]
Kernel = Annotated[
    bool,
    typer.Option(
        "--kernel",
        help="X is a kernel K between the rows: kernel ridge, (K + l2 I) a = y; test features are K(test rows, rows).",
    ),
]
CriterionName = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="What is minimised instead of squared error: cross-entropy, binary-cross-entropy, absolute (l1), huber, "
        "smooth-l1, quantile:0.9, poisson, hinge, squared-hinge, multi-margin, squared-multi-margin, soft-margin, "
        "multilabel-soft-margin. With --l2 the sum of the row losses + l2 / 2 * ||weight||^2.",
    ),
]
Budget = Annotated[
    float,
    typer.Option(
        "--budget", metavar="SECONDS", help="Seconds for all of it; the optimizers share equally what the rest leaves."
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the starting weights.", callback=_checked_seed)]
PlotFile = Annotated[
    str | None, typer.Option("--plot", metavar="FILE", help="Draw loss against time: .png, .svg or .pdf.")
]
PageFile = Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the report: one page, offline.")]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for the standard output, alone."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory for all of it, as 1.5GB: larger tables are read by blocks. By default each may take a quarter of "
        "what is available here or in this container.",
        callback=_limit_memory,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and JSON with --json -.")]
