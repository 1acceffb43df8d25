"""The command line: ``closedform compare | solve | demo``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its status: 0 certified, 1 not certified, 2 usage or input error."""
    from closedform.cli.app import app

    app()
