"""A clock for what is trained within a budget: what a test sees does not depend on how fast the machine is."""

from __future__ import annotations

__all__ = ["Ticking"]


class Ticking:
    """A clock that moves on whenever it is looked at, whatever the machine is doing."""

    def __init__(self, seconds: float = 3e-3) -> None:
        self.now, self.tick = 0.0, seconds

    def __call__(self) -> float:
        self.now += self.tick
        return self.now
