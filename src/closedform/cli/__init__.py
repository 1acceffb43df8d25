"""The command line: ``closedform compare | solve | diagnose | accuracy | demo | show-versions``."""

from __future__ import annotations

import gc
import os
import sys
import time

__all__ = ["main"]

#: What a shell reports of a program that Ctrl-C ended: 128 and the number of SIGINT.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its status: 0 certified, 1 not certified, 2 usage or input error."""
    begun = time.perf_counter()
    _open_standard_streams()
    try:
        # Importing takes a while, in which Ctrl-C may come as well.
        from closedform.cli.app import app

        # What the user has waited for since comes off the budget of a comparison.
        app(obj=begun)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    finally:
        # At its end Python looks through all modules for garbage, over and over: a second of CPU where torch is loaded.
        # The process ends, and its memory with it.
        gc.freeze()


def _open_standard_streams() -> None:
    """Open the standard streams that a shell closed: the next file to be opened would take their number otherwise.

    What is written to a closed standard output fails, as everywhere; to a closed standard error it is lost.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        stream = os.fdopen(number, "r" if name == "stdin" else "w", closefd=False)
        setattr(sys, name, stream)
