"""Progress of long work: on interactive terminals, on stderr, and only once it has taken two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, final

from closedform.words.errors import InputError

__all__ = ["Progress"]

#: Seconds before work counts as long.
_PATIENCE_SECONDS = 2.0


@final
class Progress:
    """A progress hook ``(label, part done)`` that stays silent for short work and where nobody watches.

    Args:
        wanted: None for the default, False for silence, or a function that takes over.

    Raises:
        InputError: it is something else.
    """

    def __init__(self, wanted: Callable[[str, float], None] | bool | None) -> None:
        if not (wanted is None or isinstance(wanted, bool) or callable(wanted)):
            raise InputError(
                f"progress={wanted!r} must be None, True or False, or a function of a label and the part done."
            )
        self._function = wanted if callable(wanted) else None
        self._visible = wanted is True or (wanted is None and _somebody_watches())
        self._started = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None

    @property
    def watcher(self) -> Progress | None:
        """This, or None where nobody will ever be told anything."""
        return self if self._visible or self._function is not None else None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, label: str, part: float) -> None:
        """Tell what is being done and how much of it is done, from 0 to 1."""
        if self._function is not None:
            self._function(label, part)
        elif self._visible and time.perf_counter() - self._started > _PATIENCE_SECONDS:
            if self._bar is None:
                from rich.console import Console
                from rich.progress import Progress as Bar

                self._bar = Bar(console=Console(stderr=True), transient=True)
                self._bar.start()
                self._task = self._bar.add_task(label, total=1.0)
            self._bar.update(self._task, description=label, completed=part)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _somebody_watches() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
