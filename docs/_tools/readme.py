"""Write the README's picture and table: ``python docs/_tools/readme.py`` compares on the data of the demo."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

import closedform as cf
from closedform.files.example import kernel_example

mpl.use("agg")

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "_static" / "kernel.svg"
_BETWEEN = re.compile(r"(<!-- begin: docs/_tools/readme.py -->\n).*(<!-- end -->)", re.DOTALL)
#: Seconds for all methods together, as long as the demo takes.
_BUDGET = 15.0


def table(comparison: cf.Comparison) -> str:
    """Return the methods as a table in Markdown."""
    lines = ["| method | seconds | loss above the minimum | mean error on test rows |", "| --- | --- | --- | --- |"]
    for row in comparison.to_dict()["methods"]:
        numbers = (row["seconds"], row["excess_loss"], row["test_mae"])
        lines.append(f"| {row['name']} | " + " | ".join(_number(value) for value in numbers) + " |")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2g}"


def main() -> None:
    """Compare, and write both."""
    data = kernel_example()
    comparison = cf.compare(data.X, data.Y, data.X_test, data.Y_test, budget=_BUDGET, progress=False)
    mpl.rcParams["svg.hashsalt"] = "closedform"  # the same picture is the same file
    ax = comparison.plot()
    ax.figure.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None})

    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(_BETWEEN.sub(lambda found: found[1] + table(comparison) + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
