"""Remedies: code to paste that runs as it stands, with the names that the user passed; or a command for a command line.

A remedy may use ``model``, ``X``, ``Y``, ``optimizer`` and ``criterion``, as they were passed to ``diagnose``.
"""

from __future__ import annotations

from closedform.explain.case import Case
from closedform.explain.training import SAFETY

__all__ = [
    "as_command",
    "closed_form",
    "kernel_ridge",
    "layer_of",
    "optimizer_code",
    "ridge",
    "rounded_down",
    "sgd_code",
    "solve_code",
    "stable_rate",
    "standardise",
    "tensors",
]


def layer_of(case: Case) -> str:
    """The linear layer as code."""
    return "model" if case.setting.model is None else case.setting.model.path


def tensors(case: Case) -> str:
    """A line that makes tensors of X and Y where the user holds something else."""
    if case.setting.table.kind == "tensor":
        return ""
    dtype = str(case.setting.table.dtype if case.setting.model is None else case.setting.model.weight.dtype)
    return f"import numpy as np\nX, Y = (torch.as_tensor(np.asarray(table), dtype={dtype}) for table in (X, Y))\n"


def solve_code(case: Case, options: str = "") -> str:
    """Solve for the weights at once, with or without a bias as the layer is; or the command that does."""
    setting = case.setting
    if setting.command is not None:
        flags = (" --bias" if setting.bias else "") + options
        return f"closedform solve {setting.command.source}{flags} --out layer.safetensors"
    return f"import closedform as cf\n\nsol = cf.solve(X, Y{', bias=True' if setting.bias else ''}{options})"


def ridge(case: Case, l2: str) -> str:
    """Solve with a ridge."""
    return solve_code(case, f" --l2 {l2}" if case.setting.command is not None else f", l2={l2}")


def kernel_ridge(case: Case) -> str:
    """Solve as kernel ridge at the best strength; or the commands that show how well that does and that solve."""
    command = case.setting.command
    if command is not None and case.setting.l2:
        return (
            f"closedform solve {command.source} --kernel --l2 {case.setting.l2:g} --out layer.safetensors\n"
            f'closedform compare {command.source}   # its row "kernel ridge, l2 by leave-one-out" has the best strength'
        )
    if command is not None:
        return f'closedform compare {command.source}   # its row "kernel ridge, l2 by leave-one-out"'
    return (
        "import closedform as cf\n\n"
        "path = cf.ridge_path(X, Y, kernel=True)   # (K + l2 I) a = y, l2 by leave-one-out, certified\nprint(path)"
    )


def closed_form(case: Case) -> str:
    """Put the layer at the minimiser."""
    setting = case.setting
    if setting.command is not None:
        return ridge(case, f"{setting.l2:g}") if setting.l2 else solve_code(case)
    if setting.model is not None and setting.l2 == 0:
        return (
            f"import closedform as cf\n\nsol = cf.fit_({setting.model.path}, X, Y)   # the exact minimiser, certified\n"
            "print(sol)"
        )
    options = (", bias=True" if setting.bias else "") + (f", l2={setting.l2:g}" if setting.l2 else "")
    return f"import closedform as cf\n\nsol = cf.solve(X, Y{options})   # the exact minimiser, certified\nprint(sol)"


def sgd_code(case: Case, lr: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> str:
    """An SGD of these settings, lr on the user's own loss; or the command that judges it."""
    command = case.setting.command
    if command is not None:
        flags = f" --momentum {momentum:g}" * bool(momentum) + " --nesterov" * nesterov + " --bias" * case.setting.bias
        return f"closedform diagnose {command.source} --optimizer sgd --lr {rounded_down(lr):.3g}{flags}"
    extra = ""
    if momentum:
        extra = f", momentum={momentum:g}" + (", nesterov=True" if nesterov else "")
        extra += f", dampening={dampening:g}" if dampening else ""
    # Three digits, rounded towards zero: a limit is not to be crossed by rounding.
    return f"optimizer = torch.optim.SGD(model.parameters(), lr={rounded_down(lr):.3g}{extra})"


def stable_rate(case: Case, limit: float) -> float:
    """A learning rate on ``MSELoss()`` that the user's SGD stands, with batches of the user's size where there are any.

    Args:
        case: The case.
        limit: The largest stable one for the full batch, or any smaller number.
    """
    setting, training = case.setting, case.training
    if setting.full_batch:
        return SAFETY * limit
    batches = training.own_mini_batch(min(limit, training.own_limit) / 2)
    return min(SAFETY * limit, batches.lr_limit / 4, batches.lr_limit_by_epochs / 4)


def optimizer_code(case: Case, **changed: object) -> str:
    """The user's own optimizer with some settings changed, and those that matter kept."""
    optimizer = case.setting.optimizer
    if optimizer is None:
        return sgd_code(case, 0.9 * case.landscape.spectrum.learning_rate_limit)
    defaults = {
        "lr": None,
        "momentum": 0,
        "nesterov": False,
        "weight_decay": 0,
        "alpha": 0.99,
        "betas": (0.9, 0.999),
        "amsgrad": False,
        "centered": False,
    }
    settings = {
        key: value for key, value in optimizer.settings.items() if key in defaults and value != defaults[key]
    } | changed
    written = ", ".join(f"{key}={_written(value)}" for key, value in settings.items() if value is not None)
    return f"optimizer = torch.optim.{optimizer.name}(model.parameters(), {written})"


def _written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def rounded_down(value: float) -> float:
    """Return a number of three digits that is not larger."""
    rounded = float(f"{value:.3g}")
    return rounded if rounded <= value else float(f"{rounded * (1 - 1e-2):.3g}")


def as_command(case: Case, remedy: str) -> str:
    """Keep of a remedy what can be typed on a command line; where nothing can, the closed form."""
    commands = [line.split("   #")[0] for line in remedy.splitlines() if line.startswith("closedform ")]
    return "\n".join(commands) if commands else closed_form(case)


def standardise(case: Case) -> str:
    """Normalise the features, and say what becomes of the weights."""
    layer = layer_of(case)
    if case.setting.bias:
        return tensors(case) + (
            "mean, std = X.mean(0), X.std(0).clamp_min(1e-12)\n"
            "train(model, (X - mean) / std)          # then undo it in the layer:\n"
            "with torch.no_grad():\n"
            f"    {layer}.weight.div_(std)\n"
            f"    {layer}.bias.sub_({layer}.weight @ mean)"
        )
    return tensors(case) + (
        "size = X.square().mean(0).sqrt().clamp_min(1e-300)\n"
        "train(model, X / size)                  # then undo it in the layer:\n"
        "with torch.no_grad():\n"
        f"    {layer}.weight.div_(size)"
    )
