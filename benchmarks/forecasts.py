"""Hold forecasts against real runs of torch: random problems, 200 steps each, by method.

    python benchmarks/forecasts.py

Learning rates are at 0.1, 0.5 and 0.999 of the limit, conditions 1 to 1e7, targets 1 to 8, with and without a bias,
every seventh with weight decay. The error is the largest relative one of the loss, where that stands above rounding.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from typing import Any

import torch
from record import write
from torch import Tensor, nn

from closedform.explain.forecasts import forecast, step_limit
from closedform.explain.spectra import spectrum

#: Steps of a run.
STEPS = 200
#: Multiples of the rounding floor above which a loss is compared.
ABOVE = 1e12


def problem(seed: int) -> tuple[Tensor, Tensor, bool]:
    """Draw features of some condition number, targets, and whether there is a bias."""
    g, options = torch.Generator().manual_seed(seed), {"dtype": torch.float64}
    rows, features, targets = (int(torch.randint(a, b, (1,), generator=g)) for a, b in ((20, 60), (1, 12), (1, 9)))
    decades = 6 * float(torch.rand(1, generator=g))
    left = torch.linalg.qr(torch.randn(rows, features, generator=g, **options)).Q
    right = torch.linalg.qr(torch.randn(features, features, generator=g, **options)).Q
    X = (left * torch.logspace(0, -decades, features, **options)) @ right
    noise = torch.randn(rows, targets, generator=g, **options) * (seed % 2)
    return X, X @ torch.randn(features, targets, generator=g, **options) + noise, bool(seed % 3)


def settings_of(seed: int) -> dict[str, Any]:
    """Settings of SGD beside the learning rate."""
    momentum = (0.0, 0.3, 0.9, 0.99)[seed % 4]
    nesterov = momentum > 0 and seed % 5 < 2
    dampening = 0.3 if momentum and not nesterov and seed % 3 == 1 else 0.0
    decay = 1e-3 if seed % 7 == 0 else 0.0
    return {"momentum": momentum, "nesterov": nesterov, "dampening": dampening, "weight_decay": decay}


def name_of(settings: dict[str, Any]) -> str:
    """The method in words."""
    if not settings["momentum"]:
        return "gradient descent"
    dampened = f", dampening {settings['dampening']:g}" if settings["dampening"] else ""
    return f"{'Nesterov' if settings['nesterov'] else 'heavy ball'} {settings['momentum']:g}{dampened}"


def run(seed: int) -> tuple[str, float, float]:
    """Forecast and train one problem; return the method, the condition number and the error."""
    X, Y, bias = problem(seed)
    settings, found = settings_of(seed), spectrum(X, Y, bias=bias)
    largest = float(found.eigenvalues[0]) + settings["weight_decay"]
    limit = step_limit(largest, settings["momentum"], settings["nesterov"], settings["dampening"])
    lr = limit * (0.999, 0.5, 0.1)[seed % 3]

    torch.manual_seed(seed)
    layer = nn.Linear(X.shape[1], Y.shape[1], bias=bias, dtype=torch.float64)
    predicted = forecast(found, "momentum", lr=lr, steps=STEPS, start=layer, **settings)
    optimizer, losses = torch.optim.SGD(layer.parameters(), lr=lr, **settings), []
    for _ in range(STEPS + 1):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(X), Y)
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()

    measured = torch.tensor(losses, dtype=torch.float64)
    apart = ((predicted.loss - measured).abs() / measured)[measured > ABOVE * predicted.rounding_floor]
    return name_of(settings), found.condition, float(apart.max())


def main() -> None:
    """Run all problems and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", help="write the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in range(options.runs):
        name, condition, error = run(seed)
        found[name].append((condition, error))

    rows = []
    for name, runs in sorted(found.items()):
        conditions, errors = zip(*runs, strict=True)
        median, worst = statistics.median(errors), max(errors)
        row = {"method": name, "runs": len(runs), "lowest_condition": min(conditions)}
        rows.append(row | {"highest_condition": max(conditions), "median": median, "worst": worst})
        print(f"{name:32} {len(runs):4} runs, median {median:.0e}, worst {worst:.0e}")
    if options.json:
        write(options.json, rows, torch.get_num_threads())


if __name__ == "__main__":
    main()
