"""Hold what ``diagnose`` says against real training: random set-ups, each trained in torch, scored claim by claim.

    python benchmarks/truth.py --setups 300 --seed 0

A claim is true, false, or not made (silent). Nothing may be false; silence is allowed and counted.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import write
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
#: Share of optimizers other than SGD that see batches.
BATCHED = 0.25


Loss = Callable[[Tensor, Tensor], Tensor]
Make = Callable[[Any], torch.optim.Optimizer]
Scheduler = Callable[[torch.optim.Optimizer], Any]

#: What goes wrong in loops, and the words of the title that names it; None where no name is to be had.
SLIPS = (
    "never zeroed",
    "uphill",
    "nothing moves",
    "half the rate",
    "summed",
    "clipped",
    "scheduler not passed",
    "other rows",
    "random layer",
)


@dataclass
class Setup:
    """One training set-up, as a user would write it."""

    name: str
    X: Tensor
    Y: Tensor
    model: nn.Module
    make: Make
    schedule: Scheduler | None
    criterion: Loss
    steps: int
    batch_size: int | None
    slip: str
    by_epochs: bool = False
    every: int = 1


def draw(seed: int) -> Setup:
    """Draw a set-up: data, model, criterion, optimizer, schedule, batches, slip."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype = dice.choice([torch.float64, torch.float64, torch.float32])
    kind, X, Y = draw_data(dice, g)
    X, Y = X.to(dtype), Y.to(dtype)
    rows, targets = Y.shape

    torch.manual_seed(seed)
    layer = nn.Linear(X.shape[1], targets, bias=dice.random() < 0.6, dtype=dtype)
    limit = cf.diagnose(X, Y, bias=layer.bias is not None).learning_rate_limit
    wrap, model, Y = draw_model(dice, layer, Y)
    which, criterion, factor = draw_criterion(dice, rows, targets)
    steps = int(math.exp(dice.uniform(*map(math.log, STEPS))))
    settings = SGD(dice, limit / factor)
    optimizer, make = draw_optimizer(dice, settings)
    if optimizer == "lbfgs":
        steps = min(steps, dice.choice([1, 3, 20]))
    schedule = None
    if optimizer != "lbfgs" and dice.random() < 0.25:
        schedule = draw_schedule(dice, steps, settings.lr if optimizer == "sgd" else 0.01)
    batch, by_epochs = None, False
    if optimizer == "sgd" and dice.random() < 0.3:
        batch, by_epochs = dice.choice([1, 4, rows // 2]), dice.random() < 0.3
    slip = "none"
    if batch is None and optimizer != "lbfgs" and dice.random() < 0.3:
        slip = dice.choice(SLIPS)
    every = dice.choice([1, 1, 5])
    # With dice of their own, so that the other set-ups stay as they were.
    other = random.Random(f"batches {seed}")
    if batch is None and slip == "none" and optimizer != "sgd" and other.random() < BATCHED:
        batch, by_epochs = other.choice([1, 4, rows // 2]), other.random() < 0.5
    name = f"{seed}: {kind} {rows}x{X.shape[1]}x{targets} {str(dtype)[6:]} {wrap} {optimizer} {which} {slip}"
    return Setup(name, X, Y, model, make, schedule, criterion, steps, batch, slip, by_epochs=by_epochs, every=every)


def draw_data(dice: random.Random, g: torch.Generator) -> tuple[str, Tensor, Tensor]:
    """Draw features and targets."""
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
    return kind, X, Y


class Head(nn.Module):
    """A layer under a name of its own, as users wrap it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.head = layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the layer's output."""
        output: Tensor = self.head(rows)
        return output


def draw_model(dice: random.Random, layer: nn.Linear, Y: Tensor) -> tuple[str, nn.Module, Tensor]:
    """Wrap the layer; some wrappers drop the dimension of a single target."""
    wrap = dice.choice(["plain", "plain", "sequential", "head", "dropout off", "flat" if Y.shape[1] == 1 else "plain"])
    if wrap == "sequential":
        return wrap, nn.Sequential(nn.Identity(), layer), Y
    if wrap == "head":
        return wrap, Head(layer), Y
    if wrap == "dropout off":
        return wrap, nn.Sequential(nn.Dropout(0.0), layer), Y
    if wrap == "flat":
        return wrap, nn.Sequential(layer, nn.Flatten(0)), Y.reshape(-1)
    return wrap, layer, Y


def draw_criterion(dice: random.Random, rows: int, targets: int) -> tuple[str, Loss, float]:
    """Draw a multiple of the squared error, and by what it is multiplied; or some other loss."""
    which = dice.choice(["mse", "mse", "mse", "sum", "half", "per row", "function", "l1", "huber"])
    losses: dict[str, tuple[Loss, float]] = {
        "mse": (nn.MSELoss(), 1.0),
        "sum": (nn.MSELoss(reduction="sum"), float(rows * targets)),
        "half": (lambda output, target: ((output - target) ** 2).mean() / 2, 0.5),
        "per row": (lambda output, target: ((output - target) ** 2).reshape(len(output), -1).sum(1).mean(), targets),
        "function": (nn.functional.mse_loss, 1.0),
        "l1": (nn.L1Loss(), 1.0),
        "huber": (nn.HuberLoss(), 0.5),
    }
    return (which, *losses[which])


class SGD:
    """Settings of SGD, as a share of the largest stable step."""

    def __init__(self, dice: random.Random, limit: float) -> None:
        self.lr = dice.choice([0.01, 0.3, 0.9, 0.98, 1.05, 1.5]) * limit
        self.momentum, self.nesterov = dice.choice([(0.0, False)] * 3 + [(0.9, False), (0.9, True), (0.5, False)])
        self.decay = dice.choice([0.0, 0.0, 0.0, 0.01])
        self.dampening = dice.choice([0.0, 0.0, 0.3]) if self.momentum and not self.nesterov else 0.0

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.decay,
            dampening=self.dampening,
        )


def draw_optimizer(dice: random.Random, sgd: SGD) -> tuple[str, Make]:
    """Draw an optimizer with its settings."""
    lr, decay, o = 10.0 ** dice.choice([-3, -2, -1]), dice.choice([0.01, 0.1, 1.0]), torch.optim
    found: list[tuple[str, Make]] = [("sgd", sgd)] * 5
    found += [("sgd", lambda p: o.SGD(p, lr=sgd.lr))] * 5
    found += [("adam", lambda p: o.Adam(p, lr=lr))] * 3 + [("rmsprop", lambda p: o.RMSprop(p, lr=lr))] * 2
    found += [
        ("adam, amsgrad", lambda p: o.Adam(p, lr=lr, amsgrad=True)),
        ("adam, foreach", lambda p: o.Adam(p, lr=lr, foreach=True)),
        ("adam, fused", lambda p: o.Adam(p, lr=lr, fused=True)),
        ("adam, differentiable", lambda p: o.Adam(p, lr=lr, betas=(0.5, 0.9))),
        ("adam, decay", lambda p: o.Adam(p, lr=lr, weight_decay=0.01)),
        ("adamw", lambda p: o.AdamW(p, lr=lr, weight_decay=decay)),
        ("adamw", lambda p: o.AdamW(p, lr=lr)),
        ("adamax", lambda p: o.Adamax(p, lr=lr)),
        ("nadam", lambda p: o.NAdam(p, lr=lr)),
        ("radam", lambda p: o.RAdam(p, lr=lr)),
        ("rmsprop, momentum", lambda p: o.RMSprop(p, lr=lr, momentum=0.9)),
        ("rmsprop, centered", lambda p: o.RMSprop(p, lr=lr, centered=True)),
        ("adagrad", lambda p: o.Adagrad(p, lr=10 * lr)),
        ("adadelta", lambda p: o.Adadelta(p, lr=1.0)),
        ("rprop", lambda p: o.Rprop(p, lr=lr)),
        ("asgd", lambda p: o.ASGD(p, lr=sgd.lr)),
        ("lbfgs", lambda p: o.LBFGS(p)),
        ("lbfgs", lambda p: o.LBFGS(p, max_iter=50, line_search_fn="strong_wolfe")),
    ]
    return dice.choice(found)


def draw_schedule(dice: random.Random, steps: int, lr: float) -> Scheduler:
    """Draw a schedule that is stepped once a step."""
    kinds = torch.optim.lr_scheduler
    return dice.choice(
        [
            lambda o: kinds.StepLR(o, max(1, steps // 4), 0.3),
            lambda o: kinds.LinearLR(o, 0.05, 1.0, max(1, steps // 3)),
            lambda o: kinds.CosineAnnealingLR(o, steps),
            lambda o: kinds.ExponentialLR(o, 0.5 ** (4 / steps)),
            lambda o: kinds.LambdaLR(o, lambda step: 1 / (1 + 10 * step / steps)),
            lambda o: kinds.OneCycleLR(o, max_lr=lr, total_steps=steps + 1, cycle_momentum=False),
            lambda o: kinds.CyclicLR(o, lr / 10, lr, max(1, steps // 10), cycle_momentum=False),
            lambda o: kinds.SequentialLR(
                o,
                [kinds.LinearLR(o, 0.1, 1.0, max(1, steps // 10)), kinds.CosineAnnealingLR(o, steps)],
                [max(1, steps // 10)],
            ),
        ]
    )


def train(setup: Setup, seed: int = 0) -> tuple[list[float], float]:
    """Train as the user would; return the recorded losses and the excess loss at the end."""
    model = copy.deepcopy(setup.model)
    optimizer = setup.make(model.parameters())
    scheduler = None if setup.schedule is None else setup.schedule(optimizer)
    if setup.slip == "scheduler not passed":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, setup.steps // 10), 0.5)
    if setup.slip == "half the rate":
        for group in optimizer.param_groups:
            group["lr"] /= 2
    generator = torch.Generator().manual_seed(seed)
    rows = setup.X.shape[0]
    factor = {"uphill": -1.0, "summed": float(setup.Y.numel())}.get(setup.slip, 1.0)
    losses: list[float] = []
    longest = 0.05 * first_gradient(setup, model)
    for picked in batches(setup, rows, generator):
        X, Y = (setup.X, setup.Y) if picked is None else (setup.X[picked], setup.Y[picked])
        if setup.slip == "other rows":
            X = X * 2
        elif setup.slip == "random layer":
            X = nn.functional.dropout(X, 0.3)

        def closure(X: Tensor = X, Y: Tensor = Y) -> Tensor:
            if setup.slip != "never zeroed":
                optimizer.zero_grad()
            loss = setup.criterion(model(X), Y) * factor
            loss.backward()
            if setup.slip == "clipped":
                nn.utils.clip_grad_norm_(model.parameters(), longest)
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            loss = optimizer.step(closure)
        else:
            loss = closure()
            if setup.slip != "nothing moves":
                optimizer.step()
        losses.append(abs(float(loss.detach()) / factor))
        if scheduler is not None:
            scheduler.step()
        if not math.isfinite(losses[-1]) or (scheduler is None and losses[-1] > 1e30):
            break
    return losses, excess_of(setup, model)


def first_gradient(setup: Setup, model: nn.Module) -> float:
    """Length of the gradient at the start."""
    gradients = torch.autograd.grad(setup.criterion(model(setup.X), setup.Y), list(model.parameters()))
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())


def batches(setup: Setup, rows: int, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Yield the rows of each step: all, drawn anew, or one part after another of a shuffled table."""
    if setup.batch_size is None:
        yield from itertools.repeat(None, setup.steps)
        return
    made = 0
    while made < setup.steps:
        order = torch.randperm(rows, generator=generator)
        parts = order.split(setup.batch_size) if setup.by_epochs else (order[: setup.batch_size],)
        yield from parts[: setup.steps - made]
        made += len(parts)


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


#: Words of the titles that name each slip.
NAMED = {
    "never zeroed": ("never zeroed",),
    "uphill": ("uphill", "maximize"),
    "nothing moves": ("Nothing moves",),
    "half the rate": ("learning rate of", "half of the one"),
    "summed": ("summed", "learning rate of"),
    "clipped": ("clips", "learning rate"),
    "scheduler not passed": ("learning rate of the recorded run changes",),
    "other rows": ("record starts at", "The record is", "normalises its features"),
    "random layer": ("record starts at", "losses are random"),
}


def judge_slip(setup: Setup, history: Any, note: str, score: Score) -> None:
    """Score what is said of a record."""
    if setup.slip == "none":
        score.add("no slip is claimed", history is None, note)
        return
    said = None if history is None else any(words in history.title for words in NAMED[setup.slip])
    if history is not None and history.title.startswith("The record is not"):
        # It is another run, and what it is is left open.
        said = None
    score.add(f"slip: {setup.slip}", said, f"{note}; said {history.title if history else ''}")


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
            print(self.false[-1], file=sys.stderr, flush=True)

    def merge(self, counts: dict[str, dict[str, int]], false: list[str]) -> None:
        """Add what another score has counted."""
        for claim, words in counts.items():
            self.counts[claim].update(words)
        self.false += false

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
    optimizer = setup.make(setup.model.parameters())
    scheduler = None if setup.schedule is None else setup.schedule(optimizer)
    options: dict[str, Any] = {"steps": setup.steps, "batch_size": setup.batch_size, "scheduler": scheduler}
    if setup.slip != "none":
        options["history"] = train(setup)[0][:: setup.every]
    try:
        d = cf.diagnose(setup.X, setup.Y, model=setup.model, optimizer=optimizer, criterion=setup.criterion, **options)
        verdict = d.verdict
        str(d)
    except ClosedformError as error:
        score.add("no error", False, f"{setup.name}: {error}")
        return
    training, found = d.case.training, {finding.name: finding for finding in d.findings}
    goal, start = training.goal_excess, training.start_excess
    note = f"{setup.name} | {setup.steps} steps, verdict {verdict.name}: {verdict.title}, goal {goal:.3g}"
    if not training.setting.squared:
        least = excess_of(setup, setup.model)
        score.add("another loss is named", "other_loss" in found, f"{note}, start {least:.3g}")
        return

    end = train(clean)[1]
    note = f"{note}, end {end:.3g}"
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
        ends = sorted([end, *(train(clean, seed)[1] for seed in range(1, 5))])
        middle = sum(ends) / len(ends)
        clear = math.isnan(middle) or not goal / 3 < middle < 3 * goal
        score.add(
            "reaches the goal on batches", None if reached is None or not clear else (middle <= goal) == reached, note
        )
        if course is not None and math.isfinite(course.left):
            # How far runs go that diverge is not said.
            gone = min(middle, course.left) > GONE * start
            about = gone or course.least / 6 - floor <= middle <= 6 * course.most + floor
            score.add("left, on batches", about, f"{note}, said {course.left:.3g}, five runs {ends}")
    if course is not None and setup.batch_size is None:
        left = course.left
        if course.most > ABOUT * course.least and course.how != "extrapolated":
            # Training stops where it has diverged, and says no more of how far it would have gone.
            gone = min(end, course.least) > GONE
            within = gone or course.least / ABOUT - floor <= end <= ABOUT * course.most + floor
            score.add(
                f"left, {course.how}, within bounds", within, f"{note}, said {course.least:.3g} to {course.most:.3g}"
            )
        elif course.how == "extrapolated":
            score.add("left, extrapolated", abs(math.log10((left + floor + goal) / (end + floor + goal))) < 1, note)
        elif not math.isfinite(left) or left > GONE * start:
            score.add("left, diverged", not end < GONE / 100 * start, note)
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
            score.add("lr above the limit diverges", not (end < 100 * start and train(long)[1] < 100 * start), note)
    judge_slip(setup, found.get("history_differs"), note, score)
    if verdict.name == "nothing_wrong" and setup.slip == "none" and setup.batch_size is None:
        # Of a run that jumps, the sentence says how far.
        peak = 0.0 if course is None else course.most
        score.add("nothing wrong", end <= max(2 * goal, 2 * peak, floor), note)
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
    parser.add_argument("--json", help="write the table to this file")
    parser.add_argument("--resume", type=Path, help="a file with a line for each set-up: those in it are not run again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [("drawn", options.seed + k) for k in range(options.setups)]
    wanted += [("healthy", options.seed + k) for k in range(options.healthy)]
    done = {(kind, seed): found for kind, seed, *found in read_lines(options.resume)}
    total, begun = Score(), time.perf_counter()
    for kind, seed in wanted:
        counts, false = done.get((kind, seed)) or run(kind, seed, options.resume)
        total.merge(counts, false)
    print(total.table())
    print(f"\n{options.setups} set-ups, {options.healthy} healthy, {time.perf_counter() - begun:.0f} s")
    print("\n".join(total.false))
    if options.json:
        rows = [{"claim": claim, **counts} for claim, counts in sorted(total.counts.items())]
        write(options.json, rows, torch.get_num_threads())


def run(kind: str, seed: int, lines: Path | None) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Score one set-up, and note it."""
    score, begun = Score(), time.process_time()
    if kind == "healthy":
        judge_healthy(healthy(seed), score)
    else:
        judge(draw(seed), score)
    counts = {claim: dict(words) for claim, words in score.counts.items()}
    if lines is not None:
        with lines.open("a") as file:
            file.write(json.dumps([kind, seed, counts, score.false, round(time.process_time() - begun, 2)]) + "\n")
    return counts, score.false


def read_lines(lines: Path | None) -> list[tuple[str, int, dict[str, dict[str, int]], list[str]]]:
    """Return what was found of earlier set-ups: kind, seed, counts, what was false."""
    if lines is None or not lines.exists():
        return []
    found = map(json.loads, lines.read_text().splitlines())
    return [(kind, seed, counts, false) for kind, seed, counts, false, _seconds in found]


if __name__ == "__main__":
    main()
