"""Hold what ``diagnose`` says against real training: random set-ups, each trained in torch, scored claim by claim.

    python benchmarks/truth.py --setups 300 --seed 0

A claim is true, false, or not made (silent). Nothing may be false; silence is allowed and counted.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import closedform as cf
from closedform.words.errors import ClosedformError

#: How far a number may be off and still count as true.
SAME = 0.02
#: The same for numbers in expectation and for extrapolated ones.
ABOUT = 3.0
#: Steps of a run, drawn evenly in the logarithm.
STEPS = (50, 3000)
#: Losses beyond this have diverged.
GONE = 1e6


@dataclass
class Setup:
    """One training set-up, as a user would write it."""

    name: str
    X: Tensor
    Y: Tensor
    model: nn.Module
    make: Callable[[Any], torch.optim.Optimizer]
    schedule: Callable[[torch.optim.Optimizer], Any] | None
    criterion: Callable[[Tensor, Tensor], Tensor]
    steps: int
    batch_size: int | None
    slip: str
    record: list[float] = field(default_factory=list)


def draw(seed: int) -> Setup:
    """Draw a set-up: data, model, optimizer, schedule, criterion, slip."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype = dice.choice([torch.float64, torch.float64, torch.float32])
    rows, features, targets = dice.choice([20, 60, 200]), dice.choice([1, 2, 5, 12]), dice.choice([1, 1, 3])
    kind = dice.choice(["gauss", "uniform", "lognormal", "scaled", "offset", "collinear"])
    X = torch.randn(rows, features, dtype=torch.float64, generator=g)
    if kind == "uniform":
        X = torch.rand(rows, features, dtype=torch.float64, generator=g)
    elif kind == "lognormal":
        X = X.exp()
    elif kind == "scaled":
        X = X * torch.logspace(0, -dice.choice([1, 3]), features, dtype=torch.float64)
    elif kind == "offset":
        X = X + dice.choice([1.0, 5.0])
    elif kind == "collinear" and features > 1:
        X[:, -1] = X[:, 0] + 10.0 ** -dice.choice([1, 3]) * X[:, -1]
    truth = torch.randn(features, targets, dtype=torch.float64, generator=g) * 10.0 ** dice.choice([0, 0, 2])
    noise = dice.choice([0.0, 0.1, 1.0])
    Y = X @ truth + noise * torch.randn(rows, targets, dtype=torch.float64, generator=g) + dice.choice([0.0, 0.0, 3.0])
    X, Y = X.to(dtype), Y.to(dtype)

    torch.manual_seed(seed)
    layer = nn.Linear(features, targets, bias=dice.random() < 0.6, dtype=dtype)
    wrap = dice.choice(["plain", "plain", "sequential", "flat" if targets == 1 else "plain"])
    model: nn.Module = layer
    if wrap == "sequential":
        model = nn.Sequential(nn.Identity(), layer)
    elif wrap == "flat":
        model, Y = nn.Sequential(layer, nn.Flatten(0)), Y.reshape(-1)
    bias = layer.bias is not None
    limit = cf.diagnose(X, Y, bias=bias).learning_rate_limit
    steps = int(math.exp(dice.uniform(*map(math.log, STEPS))))
    criterion: Callable[[Tensor, Tensor], Tensor] = nn.MSELoss()
    factor = 1.0
    which = dice.choice(["mse", "mse", "mse", "sum", "half"])
    if which == "sum":
        criterion, factor = nn.MSELoss(reduction="sum"), float(rows * targets)
    elif which == "half":
        criterion, factor = (lambda output, target: ((output - target) ** 2).mean() / 2), 0.5

    share = dice.choice([0.01, 0.3, 0.9, 0.98, 1.05, 1.5])
    momentum, nesterov = dice.choice([(0.0, False)] * 3 + [(0.9, False), (0.9, True), (0.5, False)])
    decay = dice.choice([0.0, 0.0, 0.0, 0.01])
    lr = share * limit / factor
    adaptive = 10.0 ** dice.choice([-3, -2, -1])
    optimizer, make = dice.choice(
        [
            ("sgd", lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)),
            ("sgd", lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, nesterov=nesterov)),
            ("sgd", lambda p: torch.optim.SGD(p, lr=lr)),
            ("adam", lambda p: torch.optim.Adam(p, lr=adaptive)),
            ("adamw", lambda p: torch.optim.AdamW(p, lr=adaptive, weight_decay=dice_decay)),
            ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=adaptive)),
            ("adagrad", lambda p: torch.optim.Adagrad(p, lr=10 * adaptive)),
            ("lbfgs", lambda p: torch.optim.LBFGS(p)),
        ]
    )
    dice_decay = dice.choice([0.01, 0.1, 1.0])
    if optimizer == "lbfgs":
        steps = min(steps, dice.choice([1, 3, 20]))
    schedule = None
    if optimizer not in ("lbfgs",) and dice.random() < 0.25:
        schedule = dice.choice(
            [
                lambda o: torch.optim.lr_scheduler.StepLR(o, max(1, steps // 4), 0.3),
                lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.05, 1.0, max(1, steps // 3)),
                lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps),
            ]
        )
    batch = None
    if optimizer == "sgd" and schedule is None and momentum == 0 and decay == 0 and dice.random() < 0.3:
        batch = dice.choice([1, 4, rows // 2])
    slip = "none"
    if batch is None and optimizer != "lbfgs" and dice.random() < 0.25:
        slip = dice.choice(["never zeroed", "uphill", "nothing moves", "half the rate"])
    name = f"{seed}: {kind} {rows}x{features}x{targets} {str(dtype)[6:]} {wrap} {optimizer} {which} {slip}"
    return Setup(name, X, Y, model, make, schedule, criterion, steps, batch, slip)


def train(setup: Setup, seed: int = 0) -> tuple[list[float], float]:
    """Train as the user would; return the recorded losses and the excess loss at the end."""
    model = copy.deepcopy(setup.model)
    optimizer = setup.make(model.parameters())
    scheduler = None if setup.schedule is None else setup.schedule(optimizer)
    if setup.slip == "half the rate":
        for group in optimizer.param_groups:
            group["lr"] /= 2
    torch.manual_seed(seed)
    rows = setup.X.shape[0]
    order: list[int] = []
    losses = []
    for _ in range(setup.steps):
        X, Y = setup.X, setup.Y
        if setup.batch_size is not None:
            picked = torch.randint(rows, (setup.batch_size,)) if setup.batch_size == 1 else None
            if picked is None:
                picked = torch.randperm(rows)[: setup.batch_size]
            X, Y = X[picked], Y[picked]

        def closure(X: Tensor = X, Y: Tensor = Y) -> Tensor:
            if setup.slip != "never zeroed":
                optimizer.zero_grad()
            loss = setup.criterion(model(X), Y) * (-1 if setup.slip == "uphill" else 1)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            loss = optimizer.step(closure)
        else:
            loss = closure()
            if setup.slip != "nothing moves":
                optimizer.step()
        losses.append(abs(float(loss.detach())))
        if scheduler is not None:
            scheduler.step()
        if not math.isfinite(losses[-1]) or (scheduler is None and losses[-1] > 1e30):
            break
    del order
    return losses, excess_of(setup, model)


def excess_of(setup: Setup, model: nn.Module) -> float:
    """Excess loss of a model, in float64."""
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
    X, Y = setup.X.double(), setup.Y.double().reshape(setup.X.shape[0], -1)
    design = X if layer.bias is None else torch.cat([torch.ones(X.shape[0], 1, dtype=torch.float64), X], 1)
    best = torch.linalg.lstsq(design, Y, driver="gelsd").solution
    weights = layer.weight.detach().double().T
    if layer.bias is not None:
        weights = torch.cat([layer.bias.detach().double().reshape(1, -1), weights])
    value = float((design @ (weights - best)).square().mean())
    return value if math.isfinite(value) else math.inf


class Score:
    """True, false and silent, per claim."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.false: list[str] = []

    def add(self, claim: str, outcome: bool | None, note: str) -> None:
        """Count a claim; None is silence."""
        word = "silent" if outcome is None else "true" if outcome else "false"
        self.counts[claim][word] += 1
        if word == "false":
            self.false.append(f"{claim}: {note}")

    def table(self) -> str:
        """Return the table as markdown."""
        lines = ["| claim | true | false | silent |", "| --- | ---: | ---: | ---: |"]
        for claim, counts in sorted(self.counts.items()):
            lines.append(f"| {claim} | {counts['true']} | {counts['false']} | {counts['silent']} |")
        return "\n".join(lines)


def judge(setup: Setup, score: Score) -> None:
    """Diagnose a set-up, train it, and score what was said."""
    clean = copy.copy(setup)
    clean.slip = "none"
    record, end_with_slip = train(setup)
    optimizer = setup.make(setup.model.parameters())
    scheduler = None if setup.schedule is None else setup.schedule(optimizer)
    options: dict[str, Any] = {"steps": setup.steps, "batch_size": setup.batch_size, "scheduler": scheduler}
    if setup.slip != "none":
        options["history"] = record
    try:
        d = cf.diagnose(setup.X, setup.Y, model=setup.model, optimizer=optimizer, criterion=setup.criterion, **options)
        verdict = d.verdict
        str(d)
    except ClosedformError as error:
        score.add("no error", False, f"{setup.name}: {error}")
        return
    end = end_with_slip if setup.slip == "none" else train(clean)[1]
    training, found = d.case.training, {finding.name: finding for finding in d.findings}
    goal, start = training.goal_excess, training.start_excess
    note = (
        f"{setup.name} | {setup.steps} steps, verdict {verdict.name}: {verdict.title}, end {end:.3g}, goal {goal:.3g}"
    )
    reached, course = training.reaches_goal, training.course
    floor = d.case.training.rounding_excess * 100 + 1e-14 * d.case.spectrum.optimal_loss
    if setup.batch_size is None:
        truth = end <= max(goal, floor)
        clear = not goal / 2 < end < 2 * goal
        precise = "precision_floor" in found
        score.add(
            "reaches the goal",
            None if reached is None or not clear or (precise and reached) else truth == reached,
            note,
        )
    else:
        ends = sorted(train(clean, seed)[1] for seed in range(5))
        if course is not None and math.isfinite(course.left):
            middle = sum(ends) / len(ends)
            about = course.left / 6 - floor <= middle <= 6 * course.left + floor
            score.add("left, in expectation", about, f"{note}, said {course.left:.3g}, five runs {ends}")
    if course is not None and setup.batch_size is None:
        left = course.left
        if course.how == "extrapolated":
            score.add("left, extrapolated", abs(math.log10((left + floor + goal) / (end + floor + goal))) < 1, note)
        elif not math.isfinite(left) or left > GONE * start:
            score.add("left, diverged", not end < GONE / 100 * start, note)
        elif course.least != course.most and course.how == "forecast":
            score.add("left, forecast", None, note)
        elif setup.X.dtype == torch.float64 and course.how == "forecast":
            score.add("left, forecast", abs(left - end) <= SAME * max(left, end) + floor, f"{note}, said {left:.6g}")
        elif setup.X.dtype == torch.float64 and "adaptive_blow_up" not in found:
            near = max(left, end) <= 2 * goal
            close = abs(left - end) <= SAME * max(left, end) + floor
            score.add("left, rehearsed", True if near else close, f"{note}, said {left:.6g}")
    if "lr_above_limit" in found and setup.batch_size is None:
        long, growth = copy.copy(clean), found["lr_above_limit"].evidence.get("growth_per_step")
        if growth is not None and growth > 1.001:
            long.steps = min(20_000, setup.steps + int(60 / math.log(growth)))
            score.add("lr above the limit diverges", not train(long)[1] < 100 * start, note)
    named = {
        "never zeroed": "never zeroed",
        "uphill": "uphill",
        "nothing moves": "Nothing moves",
        "half the rate": "learning rate",
    }
    history = found.get("history_differs")
    if setup.slip == "none":
        score.add("no slip is claimed", history is None, note)
    else:
        said = None if history is None else named[setup.slip] in history.title or "half of the one" in history.title
        if history is not None and history.title.startswith("The record is not"):
            said = None
        score.add(f"slip: {setup.slip}", said, f"{note}; said {history.title if history else ''}")
    if verdict.name == "nothing_wrong" and setup.slip == "none" and setup.batch_size is None:
        score.add("nothing wrong", end <= max(2 * goal, floor), note)
    for finding in d.findings:
        share = finding.evidence.get("share_left")
        if share is not None and share > 1.0001 and finding.name == "more_steps_needed":
            score.add("shares are at most 1", False, f"{note}: {share}")


def healthy(seed: int) -> Setup:
    """A run that is well scaled, long enough and right in everything."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features, targets = dice.choice([100, 400]), dice.choice([1, 3, 8]), dice.choice([1, 2])
    X = torch.randn(rows, features, dtype=torch.float64, generator=g)
    Y = X @ torch.randn(features, targets, dtype=torch.float64, generator=g)
    Y = Y + dice.choice([0.0, 0.1, 1.0]) * torch.randn(rows, targets, dtype=torch.float64, generator=g)
    dtype = dice.choice([torch.float64, torch.float32])
    torch.manual_seed(seed)
    layer = nn.Linear(features, targets, dtype=dtype)
    limit = cf.diagnose(X, Y, bias=True).learning_rate_limit
    make = dice.choice(
        [
            lambda p: torch.optim.SGD(p, lr=0.5 * limit),
            lambda p: torch.optim.SGD(p, lr=0.3 * limit, momentum=0.8),
            lambda p: torch.optim.SGD(p, lr=0.3 * limit, momentum=0.8, nesterov=True),
            lambda p: torch.optim.Adam(p, lr=0.02),
            lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.0),
            lambda p: torch.optim.LBFGS(p, max_iter=100, line_search_fn="strong_wolfe"),
        ]
    )
    X, Y = X.to(dtype), Y.to(dtype)
    return Setup(f"healthy {seed}", X, Y, layer, make, None, nn.MSELoss(), 3000, None, "none")


def judge_healthy(setup: Setup, score: Score) -> None:
    """A healthy run is told that nothing is wrong."""
    optimizer = setup.make(setup.model.parameters())
    steps = 20 if isinstance(optimizer, torch.optim.LBFGS) else setup.steps
    d = cf.diagnose(setup.X, setup.Y, model=setup.model, optimizer=optimizer, criterion=setup.criterion, steps=steps)
    note = f"{setup.name}: {type(optimizer).__name__} {setup.X.dtype}: {d.verdict.title}: {d.verdict.sentence}"
    score.add("healthy: nothing wrong", d.verdict.name == "nothing_wrong", note)


def main() -> None:
    """Score set-ups and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setups", type=int, default=200)
    parser.add_argument("--healthy", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    score, begun = Score(), time.perf_counter()
    for seed in range(options.seed, options.seed + options.setups):
        judge(draw(seed), score)
    for seed in range(options.seed, options.seed + options.healthy):
        judge_healthy(healthy(seed), score)
    print(score.table())
    print(f"\n{options.setups} set-ups, {options.healthy} healthy, {time.perf_counter() - begun:.0f} s")
    print("\n".join(score.false))


if __name__ == "__main__":
    main()
