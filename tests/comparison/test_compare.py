"""Real optimizers beside the closed form: the rows must be true, and nothing of the user's may change."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from typing import Any

import pytest
import torch
from torch import nn

import closedform as cf
from clocks import Ticking
from closedform.comparison import entry
from closedform.comparison.contenders import CONTENDERS, Outlook, Setting
from closedform.comparison.entry import OPTIMIZERS
from closedform.comparison.results import Comparison
from closedform.explain.forecasts import forecast, step_limit
from closedform.explain.setting import GOAL
from closedform.explain.spectra import spectrum
from closedform.words.errors import DataTypeError, InputError, NonFiniteError
from closedform.words.outcome import Outcome
from data import F64

KEYS = {"name", "seconds", "steps", "train_mse", "test_mae", "excess_loss", "weight_distance", "stopped_because"}


def compare(*tables: object, **options: Any) -> Comparison:
    """``cf.compare`` against a clock of its own: 333 looks to the second, of which there are some per step."""
    return entry.compare(*tables, **{"clock": Ticking(), **options})


def easy(rows: int = 60, features: int = 4, targets: int = 2, dtype: torch.dtype = F64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, features, generator=generator, dtype=F64)
    Y = X @ torch.randn(features, targets, generator=generator, dtype=F64) + 3
    return X.to(dtype), (Y + torch.randn(rows, targets, generator=generator, dtype=F64)).to(dtype)


def kernel(rows: int = 80) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    points = 2 * torch.rand(rows + 40, 3, generator=generator, dtype=F64) - 1
    target = torch.sin(2 * points[:, 0]) + points[:, 1] * points[:, 2]
    table = torch.exp(-(torch.cdist(points, points[:rows]).square()) / 4)
    return table[:rows], target[:rows], table[rows:], target[rows:]


@pytest.mark.parametrize("bias", [False, True])
def test_everything_converges_on_well_conditioned_data(bias: bool) -> None:
    X, Y = easy()
    result = compare(X, Y, bias=bias, budget=9.0)
    assert [row.name for row in result.methods[: len(OPTIMIZERS) + 1]] == ["closed form", *OPTIMIZERS]
    design = torch.cat([torch.ones(len(X), 1, dtype=F64), X], 1) if bias else X
    singular = torch.linalg.svdvals(design)
    assert result.condition == pytest.approx(float(singular[0] / singular[-1]), rel=1e-10)
    assert result.learning_rate_limit == pytest.approx(Y.numel() / float(singular[0]) ** 2, rel=1e-10)
    best = torch.linalg.lstsq(design, Y).solution
    assert result.optimal_loss == pytest.approx(float((design @ best - Y).square().mean()), rel=1e-10)
    for row in result.methods:
        assert row.excess_loss < 1e-6, row.name
        assert row.train_mse == pytest.approx(result.optimal_loss + row.excess_loss, rel=1e-9)
    assert result["sgd"].stopped_because == "converged to rounding"
    assert result["sgd"].weight_distance < 1e-13
    assert "any of these methods gets there. All 7 optimizers came that close." in result.sentence
    assert result.outcome is Outcome.CERTIFIED


def test_the_closed_form_is_best_on_a_kernel() -> None:
    X, Y, X_test, Y_test = kernel()
    result = compare(X, Y, X_test, Y_test, budget=1.5)
    closed, *others = result.methods
    assert result.condition > 1e6
    assert all(
        closed.excess_loss < 1e-6 * row.excess_loss for row in others if row.name in OPTIMIZERS and row.name != "rls"
    )
    assert result["rls"].steps <= 5
    assert result["rls"].excess_loss <= max(1e-10 * closed.train_mse, result.rounding_floor)
    assert result["rls"].stopped_because == "converged to rounding"
    oracle = torch.linalg.solve(X, Y)
    assert closed.test_mae == pytest.approx(float((X_test @ oracle - Y_test).abs().mean()), rel=1e-3)
    assert all(closed.test_mae < row.test_mae for row in others if row.name in ("sgd", "momentum", "adam"))
    assert "Of the 7 optimizers only rls came that close." in result.sentence
    assert result.steps_needed > 1e9


def test_rows_agree_with_a_hand_written_loop() -> None:
    X, Y = easy(targets=1)
    result = compare(X, Y, bias=True, optimizers=["momentum"], budget=0.5, seed=5)
    torch.manual_seed(5)
    layer = nn.Linear(4, 1, dtype=F64)
    settings = result["momentum"].hyperparameters
    assert settings["lr"] < (1 + settings["momentum"]) * result.learning_rate_limit
    optimizer = torch.optim.SGD(layer.parameters(), lr=settings["lr"], momentum=settings["momentum"])
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(X), Y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    curve = {point.steps: point.train_mse for point in result["momentum"].curve}
    shared = [step for step in curve if step < 20]
    assert len(shared) > 10
    assert [curve[step] for step in shared] == pytest.approx([losses[step] for step in shared], rel=1e-10)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_the_stability_limits_are_where_they_are_said_to_be(name: str) -> None:
    contender = next(contender for contender in CONTENDERS if contender.name == name)
    curvature = 3.0  # of the loss 3/2 w^2: the limit of plain gradient descent is 2/3
    momentum, nesterov = (0.0 if name == "sgd" else 0.99), name == "nesterov"
    limit = step_limit(curvature, momentum, nesterov)
    for factor, stable in ((0.999, True), (1.001, False)):
        layer = nn.Linear(1, 1, bias=False, dtype=F64)
        nn.init.ones_(layer.weight)
        optimizer = contender.make(layer, Setting(factor * limit, momentum, nesterov))
        # The slowest, plain gradient descent, shrinks or grows by 1.002 a step.
        for _ in range(2_000):
            layer.weight.grad = curvature * layer.weight.detach()
            optimizer.step()
            if layer.weight.abs() > 1e6:
                break
        assert bool(layer.weight.abs() < 1) is stable
        assert bool(layer.weight.abs() > 10) is not stable


def outlook(X: torch.Tensor, Y: torch.Tensor, steps: float) -> Outlook:
    found = spectrum(X, Y)
    return Outlook(found, found.learning_rate_limit, torch.zeros(Y.shape[1], X.shape[1], dtype=F64), steps, 2.0**-52)


@pytest.mark.parametrize(("steps", "condition"), [(10, 30.0), (200, 1e4), (5000, 1e4), (5000, 1.0)])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_settings_are_about_the_best_that_there_are(name: str, steps: int, condition: float) -> None:
    """E16: a momentum fixed at .99 is a straw man. Held against a search over many more settings."""
    X, _ = easy(features=6, targets=1)
    U = torch.linalg.qr(X)[0]
    X = U * torch.logspace(0, -math.log10(condition), 6, dtype=F64)
    view = outlook(X, U.sum(1, keepdim=True), steps)
    (chosen,) = next(c for c in CONTENDERS if c.name == name).choose(view)
    nesterov = name == "nesterov"
    largest = float(view.spectrum.eigenvalues[0])

    def log_excess(setting: Setting) -> float:
        options = {"momentum": setting.momentum, "nesterov": setting.nesterov}
        course = forecast(view.spectrum, "sgd", lr=setting.lr, steps=[steps - 1, steps], **options)
        return math.log10(max(float(course.excess.max()), 1e-26))

    momenta = [0.0] if name == "sgd" else [1 - 10 ** (-k / 4) for k in range(17)]
    grid = [
        Setting(share / 20 * step_limit(largest, momentum, nesterov), momentum, nesterov)
        for momentum in momenta
        for share in range(1, 20)
    ]
    best, start = min(map(log_excess, grid)), math.log10(view.spectrum.excess_at_zero)
    # Four fifths of the way down that a fine grid knows of, in decades.
    assert log_excess(chosen) - start <= 0.8 * (best - start) + 0.1


def test_keys_of_the_dictionary_and_strict_numbers() -> None:
    X, Y = easy()
    data = compare(X, Y, optimizers=["sgd"], budget=0.1).to_dict()
    assert {"condition", "rank", "learning_rate_limit", "methods"} <= data.keys()
    assert all(row.keys() >= KEYS for row in data["methods"])
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    curve = data["methods"][1]["curve"]
    assert curve["steps"][0] == 0
    assert all(len(values) == len(curve["steps"]) for values in curve.values())
    assert data["methods"][0]["test_mae"] is None


def test_float32_is_trained_in_float32_and_measured_against_the_float64_minimiser() -> None:
    X, Y = easy(dtype=torch.float32)
    result = compare(X, Y, bias=True, optimizers=["sgd"], budget=10.0)
    assert 0 < result["closed form"].weight_distance < 1e-7
    assert 0 < result["sgd"].weight_distance < 1e-5
    assert result["sgd"].stopped_because == "converged to rounding"


def test_sample_weights_are_trained_and_measured() -> None:
    X, Y = easy()
    weight = torch.rand(len(X), generator=torch.Generator().manual_seed(3), dtype=F64)
    weight[:5] = 0
    result = compare(X, Y, bias=True, sample_weight=weight, budget=10.0, optimizers=["sgd", "lbfgs strong wolfe"])
    design = torch.cat([torch.ones(len(X), 1, dtype=F64), X], 1)
    best = torch.linalg.lstsq(weight.sqrt()[:, None] * design, weight.sqrt()[:, None] * Y).solution
    loss = float((weight[:, None] * (design @ best - Y).square()).sum() / (weight.sum() * Y.shape[1]))
    assert result.optimal_loss == pytest.approx(loss, rel=1e-10)
    for row in result.methods:
        assert row.train_mse == pytest.approx(loss, rel=1e-9), row.name
        assert row.weight_distance < 1e-6


def test_starting_weights_can_be_given() -> None:
    X, Y = easy()
    layer = nn.Linear(4, 2, dtype=F64)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    result = compare(X, Y, bias=True, layer=layer, optimizers=["adam"], budget=0.2)
    start = float(nn.functional.mse_loss(layer(X), Y).detach())
    assert result["adam"].curve[0].train_mse == pytest.approx(start, rel=1e-12)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_nothing_of_the_users_changes() -> None:
    X, Y = easy()
    copies = X.clone(), Y.clone()
    state = torch.get_rng_state()
    compare(X, Y, bias=True, budget=0.3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(X, copies[0])
    assert torch.equal(Y, copies[1])
    assert not X.requires_grad


def test_the_budget_is_kept_and_shared() -> None:
    X, Y, *_ = kernel()
    result = compare(X, Y, budget=0.6)
    for name in OPTIMIZERS:
        assert result[name].seconds < 0.1 + 0.1, name  # its share, and one step on a busy machine
        ending = ("converged to rounding",) if name == "rls" else ("time is up", "no further change")
        assert result[name].stopped_because.startswith(ending), name
    assert "the best of" in result["adam"].settings


def test_divergence_is_seen_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["closedform.comparison.entry"]
    wild = [type(CONTENDERS[0])("sgd", "lr {lr}", CONTENDERS[0].make, lambda outlook: (Setting(3 * outlook.limit),))]
    monkeypatch.setattr(module, "CONTENDERS", wild)
    X, Y = easy()
    row = compare(X, Y, optimizers=["sgd"], budget=5.0)["sgd"]
    assert row.stopped_because.startswith("diverged after")
    assert row.seconds < 1
    assert row.excess_loss > 1e3


def test_lbfgs_says_which_absolute_tolerance_stopped_it() -> None:
    X, Y = easy()
    row = compare(X, Y, optimizers=["lbfgs"], budget=5.0)["lbfgs"]
    assert "(absolute)" in row.stopped_because
    assert row.excess_loss > 1e-25
    exact = compare(X, Y, optimizers=["lbfgs strong wolfe"], budget=5.0)["lbfgs strong wolfe"]
    assert exact.excess_loss < row.excess_loss


@pytest.mark.parametrize(("at", "names"), [("momentum", ["sgd", "momentum"]), ("adam", ["sgd", "momentum", "adam"])])
def test_an_interrupt_keeps_what_there_is(at: str, names: list[str]) -> None:
    X, Y, *_ = kernel()
    calls = []

    def progress(what: str, part: float) -> None:
        calls.append((what, part))
        if what == at and part > 0.001:
            raise KeyboardInterrupt

    result = compare(X, Y, optimizers=["sgd", "momentum", "adam", "lbfgs"], budget=1.6, progress=progress)
    assert result.interrupted
    assert [row.name for row in result.methods if row.name in OPTIMIZERS] == names
    assert result[at].stopped_because == "interrupted"
    assert math.isfinite(result[at].train_mse)
    assert "(interrupted)" in str(result)
    assert all(0 <= part <= 1 for _, part in calls)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizers": ["sgd", "sdg"]}, InputError, r"unknown optimizer 'sdg'.*sgd, momentum"),
        ({"budget": 0.0}, InputError, "budget is 0.0"),
        ({"budget": math.nan}, InputError, "budget is nan"),
        ({"X_test": torch.ones(3, 4)}, InputError, "X_test was given without Y_test"),
        ({"X_test": torch.ones(3, 5), "Y_test": torch.ones(3, 2)}, InputError, "5 features and 2 targets"),
        ({"X_test": torch.ones(3, 4), "Y_test": torch.full((3, 2), math.nan)}, NonFiniteError, "Y_test"),
        ({"X_test": [["a"] * 4], "Y_test": [[1.0, 2.0]]}, DataTypeError, "X_test"),
        ({"layer": nn.Linear(3, 2)}, InputError, "layer maps 3 features to 2 targets"),
        ({"sample_weight": -torch.ones(60)}, InputError, "sample_weight"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    X, Y = easy()
    with pytest.raises(error, match=message):
        compare(X, Y, **{"budget": 0.1, **change})  # type: ignore[arg-type]


def test_bad_training_data_names_the_place() -> None:
    X, Y = easy()
    X[7, 2] = math.inf
    with pytest.raises(NonFiniteError, match=r"X holds inf in column 2, first in row 7"):
        compare(X, Y, budget=0.1)


def test_integers_vectors_and_many_axes_are_taken_as_elsewhere() -> None:
    X = torch.arange(12).reshape(2, 3, 2) % 5
    result = compare(X, X.sum(-1), optimizers=["sgd"], budget=0.9)
    assert (result.n_rows, result.n_features, result.n_targets) == (6, 2, 1)
    assert result["sgd"].weight_distance < 1e-6
    assert any("converted to float64" in note for note in result.notes)


def test_text_fits_eighty_columns_and_html_is_escaped() -> None:
    X, Y, X_test, Y_test = kernel()
    result = compare(X, Y, X_test, Y_test, budget=0.3)
    text = str(result)
    assert text.startswith("Condition ")
    assert max(map(len, text.splitlines())) <= 80
    for name in ("closed form", *OPTIMIZERS):
        assert name in text
    html = unescape(result._repr_html_())
    (table,) = re.findall(r'<section id="methods">.*?(<table>.*?</table>)', html, re.S)
    assert table.count("<tr") == len(result.methods) + 1


def test_plot_draws_a_line_per_optimizer_and_the_floor() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    X, Y = easy()
    result = compare(X, Y, optimizers=["sgd", "adam"], budget=0.2)
    axes = result.plot(figure.Figure().add_subplot())
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:3] == ["sgd", "adam", "closed form"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (line,) = [line for line in axes.get_lines() if line.get_label() == "sgd"]
    assert min(line.get_ydata()) == pytest.approx(result["sgd"].excess_loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_as_it_is(dtype: torch.dtype) -> None:
    X, Y = easy(dtype=dtype)
    result = compare(X, Y, bias=True, optimizers=["sgd", "adam"], budget=0.4)
    assert result["closed form"].weight_distance < 2 * torch.finfo(dtype).eps
    assert result["sgd"].weight_distance < 0.1
    assert result["sgd"].weight_distance > result["closed form"].weight_distance / 2


def test_a_minimiser_that_is_not_unique_is_said_to_be_so() -> None:
    X = torch.tensor([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0], [5.0, 6.0]], dtype=F64)
    result = compare(X, X.sum(1), bias=True, optimizers=["sgd"], budget=20.0)
    assert result.rank == 2
    assert result["sgd"].excess_loss < 1e-20
    assert result["sgd"].weight_distance > 1e-3
    assert "the minimiser is not unique" in str(result)
    assert math.isfinite(result.condition)


def test_nothing_to_learn_is_no_error() -> None:
    result = compare(torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64), budget=0.6)
    assert result["closed form"].train_mse == 0
    assert "as good as the optimum already" in result.sentence
    assert result["sgd"].excess_loss < 1e-12
    assert result.diagnosis.loss.optimal == 0


def test_targets_of_a_wider_dtype_are_trained_on_rounded_and_judged_as_given() -> None:
    X, Y = easy(targets=1)
    X, Y = X.float(), Y + 1e8
    result = compare(X, Y, bias=True, optimizers=["lbfgs strong wolfe"], budget=0.5)
    (note,) = result.notes
    assert "train in float32" in note
    assert "Y was cast from float64" in note
    design = torch.cat([torch.ones(len(X), 1, dtype=F64), X.double()], 1)
    best = torch.linalg.lstsq(design, Y).solution
    assert result.optimal_loss == pytest.approx(float((design @ best - Y).square().mean()), rel=1e-5)
    # The layer's own float32 weights, on the numbers that were given: the rounded bias is what costs.
    solution = cf.solve(X, Y, bias=True)
    assert solution.bias is not None
    predicted = nn.functional.linear(X.double(), solution.weight.double(), solution.bias.double())
    expected = float((predicted - Y).square().mean())
    assert result["closed form"].train_mse == pytest.approx(expected, rel=1e-9)
    assert compare(X, Y.float(), optimizers=[], budget=0.1).notes == ()
    (note,) = compare(X, torch.arange(60), optimizers=[], budget=0.1).notes[1:]
    assert "Y was cast from int64" in note


def test_a_peer_that_raises_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, Y = easy()
    X, Y = X.float() * 1e10, Y * 1e39
    result = compare(X, Y, optimizers=["sgd"], budget=0.1)
    row = result["sklearn LinearRegression"]
    assert row.stopped_because.startswith("it raised ValueError: Input contains infinity")
    assert math.isinf(row.train_mse)
    assert "no optimizer was run: Y holds numbers as large as" in result.sentence
    assert result["closed form"].excess_loss < 1e-12 * result["closed form"].train_mse

    class Broken(linear_model.LinearRegression):  # type: ignore[misc, name-defined]
        def fit(self, *args: object, **options: object) -> None:
            raise RuntimeError("first line\nsecond line.")

    monkeypatch.setattr(linear_model, "LinearRegression", Broken)
    row = compare(*easy(), optimizers=[], budget=0.1)["sklearn LinearRegression"]
    assert row.stopped_because == "it raised RuntimeError: first line second line"


def test_an_optimizer_that_raises_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, closure: object) -> None:
        raise RuntimeError('"addmm" not implemented')

    monkeypatch.setattr(torch.optim.Adam, "step", fail)
    result = compare(*easy(), optimizers=["adam", "sgd"], budget=0.4)
    assert result["adam"].stopped_because == 'it raised RuntimeError: "addmm" not implemented'
    assert result["sgd"].excess_loss < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_floor_of_half_precision_is_its_own(dtype: torch.dtype) -> None:
    X, Y = easy(dtype=dtype)
    result = compare(X, Y, budget=1.0)
    name = str(dtype).removeprefix("torch.")
    assert result.dtype == name
    # One unit in the last place of every weight, and no more: the closed form, rounded once, is below it.
    best = torch.linalg.lstsq(X.double(), Y.double()).solution
    ulps = torch.finfo(dtype).eps ** 2 * float((X.double().square() @ best.square()).mean())
    assert result["closed form"].excess_loss < ulps
    # And what one row of the table is below is a floor of none.
    rows = [row for row in result.methods if not row.name.startswith("sklearn")]  # which computes in float32
    assert result.rounding_floor == min(row.excess_loss for row in rows) <= ulps
    assert result.rounding_floor > 1e6 * result.excess_floor
    for row in rows:
        if row.stopped_because == "converged to rounding":
            assert row.excess_loss <= 1.01 * ulps
    assert f"it is rounding of {name}." in " ".join(str(result).split())
    assert {"dtype", "rounding_floor"} <= result.to_dict().keys()


def test_the_sentence_agrees_with_the_table() -> None:
    X, Y = easy(dtype=torch.bfloat16)
    rounded = compare(X, Y, optimizers=["sgd", "momentum"], budget=0.5)
    assert rounded["sgd"].excess_loss > GOAL * rounded.optimal_loss
    assert "None of the 2 optimizers came that close: bfloat16 rounds at an excess of" in rounded.sentence
    assert "gets there" not in rounded.sentence
    X, Y = easy()
    short = compare(X, Y, optimizers=["momentum", "adam"], budget=1e-4)
    assert short.sentence.endswith("None of the 2 optimizers came that close: the budget ended first.")
    assert "gets there" not in short.sentence
    assert compare(X, Y, optimizers=["adam"], budget=1e-4).sentence.endswith(
        "The optimizer did not come that close: the budget ended first."
    )
    assert compare(X, Y, optimizers=["sgd"], budget=5.0).sentence.endswith("The optimizer came that close.")


@pytest.mark.parametrize(
    ("scale", "dtype", "rate", "factor"),
    [(1e200, F64, "1e-400", "1e-200"), (1e-200, F64, "1e400", "1e200"), (1e-30, torch.float32, "1e60", "1e30")],
)
def test_numbers_beyond_the_range_run_nothing_and_say_so(
    scale: float, dtype: torch.dtype, rate: str, factor: str
) -> None:
    X, Y = easy()
    result = compare((X * scale).to(dtype), Y, budget=0.3)
    assert {row.name for row in result.methods}.isdisjoint(OPTIMIZERS)
    assert f"no optimizer was run: the largest stable learning rate, about {rate}, is beyond" in result.sentence
    assert f"multiply X by about {factor}." in result.sentence
    assert "lr " not in result.sentence
    assert result["closed form"].weight_distance < 4 * torch.finfo(dtype).eps
    # How many steps it takes does not depend on the unit of X.
    assert result.steps_needed == compare(X, Y, optimizers=[], budget=0.1).steps_needed < 100


def test_a_loss_that_overflows_at_the_start_runs_nothing() -> None:
    X, Y = easy(dtype=torch.float16)
    result = compare(X, 1000 * Y, budget=0.3)
    assert "MSELoss() of the starting weights is inf in float16" in result.sentence
    assert {row.name for row in result.methods}.isdisjoint(OPTIMIZERS)


def test_the_state_of_the_caller_does_not_reach_the_training() -> None:
    X, Y = easy(dtype=torch.float32)
    names = ["sgd", "lbfgs strong wolfe"]
    plain = compare(X, Y, optimizers=names, budget=3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = compare(X, Y, optimizers=names, budget=3.0)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        layer = nn.Linear(4, 2)
        inference = compare(X.clone(), Y.clone(), optimizers=names, budget=3.0)
        assert torch.is_inference_mode_enabled()
        compare(X.clone(), Y.clone(), X.clone(), Y.clone(), layer=layer, sample_weight=torch.ones(60), budget=0.1)
    with torch.no_grad():
        without = compare(X, Y, optimizers=names, budget=3.0)
    for other in (autocast, inference, without):
        for name in names:
            assert other[name].steps == plain[name].steps
            assert other[name].train_mse == plain[name].train_mse


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer": nn.Conv1d(4, 2, 1)}, DataTypeError, "layer is a Conv1d; a torch.nn.Linear is needed"),
        ({"layer": nn.Linear(4, 2, device="meta")}, DataTypeError, "meta device"),
        ({"layer": nn.Linear(4, 1)}, InputError, "layer maps 4 features to 1 target, but"),
        ({"layer": nn.Linear(1, 2)}, InputError, "layer maps 1 feature to 2 targets, but"),
        ({"X_test": torch.ones(3, 1), "Y_test": torch.ones(3)}, InputError, "have 1 feature and 1 target, but"),
        ({"seed": 2**64}, InputError, "seed is 18446744073709551616"),
    ],
)
def test_more_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(*easy(), **{"budget": 0.1, **change})  # type: ignore[arg-type]


def test_one_of_each_is_in_the_singular() -> None:
    text = " ".join(str(compare([[2.0]], [4.0], optimizers=["sgd"], budget=0.1)).split())
    assert "1 row, 1 feature, 1 target, without a bias" in text
    assert "the 1 optimizers" not in text


def test_what_is_not_finite_is_none_in_the_dictionary() -> None:
    X, Y = easy()
    result = compare(X.float() * 1e10, Y * 1e39, torch.ones(2, 4), torch.ones(2, 2), budget=0.1)
    data = result.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    if "sklearn LinearRegression" in [row["name"] for row in data["methods"]]:
        row = data["methods"][-1]
        assert (row["train_mse"], row["excess_loss"], row["weight_distance"], row["test_mae"]) == (None,) * 4
    assert "no optimizer was run" in result._repr_html_()


def hard_kernel(rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """A kernel of condition 1e9 in float32 whose minimiser is a million times as long as any run's weights."""
    points = torch.linspace(-1, 1, rows, dtype=F64)[:, None]
    table = torch.exp(-(torch.cdist(points, points) ** 2) / 0.002)
    return table.float(), torch.sin(40 * points[:, 0]).float()


def test_a_run_is_not_stopped_by_the_rounding_of_weights_that_it_never_has() -> None:
    """E12: in float32 every optimizer made 0 steps, for a floor of rounding far above the loss at the start."""
    X, Y = hard_kernel()
    result = compare(X, Y, budget=2.0)
    assert float(torch.linalg.cond(X.double())) > 1e7
    start = float(Y.double().square().mean())
    for name in OPTIMIZERS:
        row = result[name]
        assert row.steps is not None
        assert row.steps >= 1, name
        if row.stopped_because == "converged to rounding":
            assert row.excess_loss < 1e-6 * start, name
    assert result["lbfgs"].excess_loss < 0.1 * start
    assert result.rounding_floor <= min(row.excess_loss for row in result.methods)
    assert result.rounding_floor < start


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("make", ["easy", "kernel", "square", "zero targets", "one row"])
def test_no_excess_is_larger_than_its_loss_and_each_takes_a_step(make: str, dtype: torch.dtype) -> None:
    """E15: an excess of 3.1e-14 stood beside a loss of 8.4e-16."""
    X, Y = {
        "easy": lambda: easy(),
        "kernel": lambda: kernel()[:2],
        "square": lambda: easy(rows=4),
        "zero targets": lambda: (easy()[0], torch.zeros(60, dtype=F64)),
        "one row": lambda: easy(rows=1),
    }[make]()
    result = compare(X.to(dtype), Y.to(dtype), budget=0.2)
    for row in result.methods:
        assert row.excess_loss <= row.train_mse, row.name
        assert all(point.excess_loss <= point.train_mse for point in row.curve)
        assert row.steps is None or row.steps >= 1
    for cells, row in zip(result.summary().sections[0].blocks[0].rows, result.methods, strict=True):
        assert cells[4].startswith("<") == (result.excess_floor > 0 and row.excess_loss <= result.excess_floor)


def test_the_optimal_loss_is_the_same_in_every_command() -> None:
    """E15: 7.4e-16 in one and 0 in the other, for the same file."""
    X, Y, *_ = kernel()
    result, found = compare(X, Y, optimizers=[], budget=0.1), cf.diagnose(X, Y)
    assert result.optimal_loss == found.to_dict()["loss"]["optimal"]
    shown = dict(found.page().lead[1].blocks[0].items)["optimal loss"]
    assert shown.startswith("< ")
    assert f"optimal MSE {shown};" in " ".join(str(result).split())


def test_what_else_took_time_is_said() -> None:
    """E19: a budget of 3 seconds took 15 to 50, and nothing said where they went."""
    clock = Ticking()
    result = compare(*easy(), optimizers=["sgd"], budget=0.5, clock=clock)
    parts = {part.name: part.seconds for part in result.elapsed}
    assert {"the closed form", "the diagnosis", "training and measuring"} <= parts.keys()
    assert sum(parts.values()) > 0.95 * clock.now
    text = " ".join(str(result).split())
    assert "s in all, of which" in text
    assert result.to_dict()["elapsed"] == parts
    assert result["sgd"].seconds <= parts["training and measuring"]


def test_a_comparison_against_the_same_clock_is_the_same() -> None:
    first, second = (compare(*easy(), budget=0.7, optimizers=["momentum", "adam", "lbfgs"]) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert [row.curve for row in first.methods] == [row.curve for row in second.methods]


def test_a_result_has_a_short_repr() -> None:
    """C3: a result typed at a prompt was a dump of all its fields."""
    result = compare(*easy(), optimizers=["sgd"], budget=0.1)
    assert repr(result).startswith("<Comparison of")
    assert len(repr(result)) < 400
    assert repr(cf.diagnose(*easy())).startswith("<Diagnosis: ")


def test_curves_are_told_apart_without_their_colours() -> None:
    """E21: two curves of LBFGS lay upon each other, and legends had three dots for one point."""
    result = compare(*kernel()[:2], budget=0.7)
    chart = result.chart()
    looks = [(series.drawn_symbol, series.marks) for series in chart.series]
    assert len(set(looks)) == len(looks)
    places = [chart.symbols(series) for series in chart.series]
    assert all(places)
    assert len(set(places)) == len(places)
    for series in chart.series:
        path, symbol = series.legend()
        assert path.count("M") <= 1
        assert symbol


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_the_table_is_scanned_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.comparison import contest
    from closedform.explain import spectra
    from closedform.fit import orchestrator
    from closedform.rows import Rows, Scan, scan

    scanned: list[tuple[int, int]] = []

    def counting(rows: Rows) -> Scan:
        scanned.append(rows.x.shape)
        return scan(rows)

    for module in (contest, spectra, orchestrator):
        monkeypatch.setattr(module, "scan", counting)
    compare(*easy(dtype=dtype), optimizers=["sgd", "lbfgs"], budget=0.1)
    assert scanned == [(60, 4)]
