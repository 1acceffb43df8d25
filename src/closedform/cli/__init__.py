"""The command line: ``closedform compare | solve | diagnose | accuracy | demo | show-versions``."""

from __future__ import annotations

import sys
import time

__all__ = ["main"]

#: What a shell reports of a program that Ctrl-C ended: 128 and the number of SIGINT.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its status: 0 certified, 1 not certified, 2 usage or input error."""
    begun = time.perf_counter()
    try:
        # Importing takes a while, in which Ctrl-C may come as well.
        from closedform.cli.app import app

        # What the user has waited for since comes off the budget of a comparison.
        app(obj=begun)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
