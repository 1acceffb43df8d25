"""The ladder: which methods can take a problem, in the order they are tried, with their predicted cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, final

from closedform.fit.factors import METHODS, Cost, Facts, Method
from closedform.words.errors import InputError, MethodRefusedError
from closedform.words.numbers import plural

__all__ = ["METHOD_NAMES", "Plan", "Step", "Traffic", "make_plan"]

#: Plans that are kept: the same facts have the same plan, and small problems of one shape often come again.
_PLANS = 64
#: Seconds from which a prediction is one: before, calls take the time, and no cost counts them.
_CALLS = 1e-3

#: What a plan says where the package was installed without a C compiler.
_NOT_COMPILED = "  (slower passes over the rows: no C compiler built the loops when closedform was installed here)"

_BY_NAME = {method.name: method for method in METHODS}

METHOD_NAMES = tuple(_BY_NAME)


@final
@dataclass(frozen=True)
class Step:
    """One method and what was predicted of it.

    Attributes:
        name: Name of the method.
        cost: Predicted cost.
        refusals: Why it is not on the ladder; empty where it is.
    """

    name: str
    cost: Cost
    refusals: tuple[str, ...]


@final
@dataclass(frozen=True)
class Traffic:
    """What the processes of one fit did together, counted while they did it.

    Attributes:
        processes: How many there are.
        rows: Rows of all of them.
        passes: Passes over the rows; each costs one exchange.
        sent: Bytes that all of them together sent for the passes; they do not depend on the rows.
    """

    processes: int
    rows: int
    passes: int
    sent: int

    def __str__(self) -> str:
        return (
            f"{self.processes} {'process' if self.processes == 1 else 'processes'} with {plural(self.rows, 'row')} "
            f"together: {self.passes} passes, {self.sent:,} bytes sent for them by all"
        )


@final
@dataclass(frozen=True, repr=False)
class Plan:
    """What is tried, in order, and what was ruled out.

    Attributes:
        facts: The facts the plan was made from.
        steps: Every method, with its predicted cost and its reasons to refuse.
        traffic: What it took in the end, where several processes worked on the fit; else None.
        busy: Tasks of others that ran when a plan of some length was made.
    """

    facts: Facts
    steps: tuple[Step, ...]
    traffic: Traffic | None = None
    busy: int = 0

    @cached_property
    def able(self) -> tuple[Step, ...]:
        """What is on the ladder. Predicted cost decides; those that cost the same keep the order of robustness."""
        return tuple(sorted((step for step in self.steps if not step.refusals), key=lambda step: step.cost.seconds))

    @property
    def ladder(self) -> tuple[Method, ...]:
        """The methods to try."""
        return tuple([_BY_NAME[step.name] for step in self.able])

    @property
    def seconds(self) -> float:
        """Predicted time of the cheapest method."""
        return self.able[0].cost.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return facts and steps as plain values for JSON."""
        return {
            "facts": asdict(self.facts),
            "steps": [{"name": step.name, **asdict(step.cost), "refusals": list(step.refusals)} for step in self.steps],
            "traffic": None if self.traffic is None else asdict(self.traffic),
            "busy": self.busy,
        }

    def __str__(self) -> str:
        lines = []
        for step in sorted(self.steps, key=lambda step: (bool(step.refusals), step.cost.seconds)):
            if step.refusals:
                lines.append(f"  {step.name:<17} not tried: {'; '.join(step.refusals)}")
            else:
                lines.append(
                    f"  {step.name:<17} {step.cost.flops:.1e} flops, {_read(step.cost)}, {_time(step.cost.seconds)}"
                )
        rates = self.facts.rates
        half = f"{rates.gram16 / 1e9:.0f} in bfloat16, " if self.facts.bfloat16 else ""
        speed = (
            f"  (GFlop/s: A'A {half}{rates.gram32 / 1e9:.0f} in float32 and {rates.gram64 / 1e9:.0f} in float64, QR "
            f"{rates.qr64 / 1e9:.0f}; reading at {self.facts.memory / 1e9:.0f} GB/s: {rates.source})"
        )
        missing = [] if self.facts.compiled else [_NOT_COMPILED]
        traffic = [] if self.traffic is None else [f"  ({self.traffic})"]
        return "\n".join(
            ["plan, cheapest first:", *lines, speed, f"  (threads: {self._threads()})", *traffic, *missing]
        )

    def _threads(self) -> str:
        """Return how many threads there are of how many processors, and why not more."""
        threads, found = self.facts.threads, self.facts.processors
        reasons = []
        if found.quota is not None and found.quota < found.machine:
            reasons.append(f"the quota of this container is {found.quota:g}")
        if found.allowed < found.machine:
            reasons.append(f"this process may run on {found.allowed}")
        if self.busy:
            others = min(self.busy, found.machine)
            reasons.append(f"other work runs on {others}, so parts of a pass go to whichever is free")
        return "; ".join([f"{threads} of {plural(found.machine, 'processor')}", *reasons])

    __repr__ = __str__


def _read(cost: Cost) -> str:
    """Return how often the rows are read, and how much that is."""
    return f"{cost.passes:g} passes reading {cost.bytes:.1e} bytes"


def _time(seconds: float) -> str:
    """Return a predicted time; below a millisecond it is the calls that take time, which no cost counts."""
    return f"about {seconds:.2g} s" if seconds >= _CALLS else f"less than {_CALLS:g} s of work"


@lru_cache(maxsize=_PLANS)
def make_plan(facts: Facts, method: str = "auto") -> Plan:
    """Ask every method for its reasons to refuse and its cost.

    Raises:
        InputError: there is no method of that name.
        MethodRefusedError: the method asked for refuses this problem.
    """
    steps = tuple(Step(each.name, each.cost(facts), each.refusals(facts)) for each in METHODS)
    if method == "auto":
        return Plan(facts, steps)
    if method not in METHOD_NAMES:
        raise InputError(f"method={method!r} is not known; use 'auto' or one of {', '.join(METHOD_NAMES)}.")
    chosen = next(step for step in steps if step.name == method)
    if chosen.refusals:
        able = [step.name for step in steps if not step.refusals]
        raise MethodRefusedError(
            f"method={method!r} cannot take this problem: {'; '.join(chosen.refusals)}. "
            f"Use 'auto' or {', '.join(able)}."
        )
    others = (f"method={method!r} was asked for",)
    return Plan(facts, tuple(step if step is chosen else Step(step.name, step.cost, others) for step in steps))
