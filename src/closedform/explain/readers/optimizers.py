"""Read a user's optimizer: its settings and a copy of its state, as they are at the call."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.words.errors import DataTypeError, InputError

__all__ = ["OptimizerReading", "kind_of", "read_optimizer", "without_compiler"]

_KINDS = {"SGD": "sgd", "LBFGS": "lbfgs"} | dict.fromkeys(
    (
        "Adafactor",
        "Adagrad",
        "Adadelta",
        "Adam",
        "AdamW",
        "Adamax",
        "Muon",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SparseAdam",
    ),
    "adam",
)
#: Optimizers whose weight decay acts beside the gradient, whatever their settings.
_DECOUPLED = ("AdamW", "Adafactor", "Muon")


@final
@dataclass(frozen=True, eq=False)
class OptimizerReading:
    """Settings of an optimizer.

    Attributes:
        name: Name of its class.
        kind: ``sgd``, ``adam`` (that is, with steps whose length the gradient does not decide alone), ``lbfgs``,
            ``torch`` (any other of ``torch.optim``) or ``other``.
        settings: All options of the group that holds the weight.
        bias_decay: Weight decay of the group that holds the bias; that of the weight where there is none.
        no_closed_form: Why the path of an SGD has no closed form; empty where it has one.
        frozen: Parameters of the layer that it does not train: ``weight``, ``bias``.
        iterations: Iterations that LBFGS counts so far.
        momentum_buffers: Momentum that SGD holds of earlier steps, by ``weight`` and ``bias``; empty if none.
        groups: Which parameters each of its groups holds: ``weight``, ``bias``.
        make: Makes the optimizer again, over ``[weight]`` or ``[weight, bias]``, with a copy of its state.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    bias_decay: float
    no_closed_form: str
    frozen: tuple[str, ...]
    iterations: int
    momentum_buffers: Mapping[str, Tensor]
    groups: tuple[tuple[str, ...], ...]
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]

    @property
    def lr(self) -> float:
        """Learning rate; NaN where the optimizer has none."""
        return float(self.settings.get("lr", math.nan))

    @property
    def momentum(self) -> float:
        """Momentum; 0 where the optimizer has none."""
        return float(self.settings.get("momentum", 0.0))

    @property
    def nesterov(self) -> bool:
        """Whether the momentum is Nesterov's."""
        return bool(self.settings.get("nesterov", False))

    @property
    def dampening(self) -> float:
        """Without momentum it has no effect in torch, and counts as 0 here."""
        return float(self.settings.get("dampening", 0.0)) if self.momentum else 0.0

    @property
    def weight_decay(self) -> float:
        """Weight decay of the group that holds the weight."""
        return float(self.settings.get("weight_decay", 0.0))

    @property
    def warm_momentum(self) -> bool:
        """Whether it holds momentum of earlier steps."""
        return bool(self.momentum_buffers)

    @property
    def maximizes(self) -> bool:
        """Whether it climbs, as ``maximize=True`` says."""
        return bool(self.settings.get("maximize", False))

    @property
    def decoupled(self) -> bool:
        """Whether weight decay acts beside the gradient and not in it, as in AdamW."""
        return self.name in _DECOUPLED or bool(self.settings.get("decoupled_weight_decay", False))


def _is_torchs(kind: type[torch.optim.Optimizer]) -> bool:
    return f"{kind.__module__}.".startswith("torch.optim.")


def kind_of(optimizer: type[torch.optim.Optimizer]) -> str:
    """Return what :attr:`OptimizerReading.kind` says of a class."""
    # A class of the user's own may do anything, whatever its name.
    if not _is_torchs(optimizer):
        return "other"
    return _KINDS.get(optimizer.__name__, "torch")


def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return a class of ``torch.optim`` whose objects do not load torch's compiler, which takes longer than torch.

    Torch marks parts of its optimizers as not to be compiled, and loads the compiler to do so; it also writes each step
    into the record of a profiler. Here their bare functions are called, so that steps are torch's own to the last bit
    and take half the time. It is meant for steps that nobody compiles, and for classes of torch alone: those of
    others are returned as they are.

    Args:
        kind: The class.
    """
    if not _is_torchs(kind):
        return kind
    step: Any = torch.no_grad()(inspect.unwrap(kind.step))
    # What torch looks at before it wraps a step into the profiler's record.
    step.hooked = True
    bare = {"step": step, "add_param_group": inspect.unwrap(kind.add_param_group), "zero_grad": _zero_grad}
    return type(kind.__name__, (kind,), {**bare, "__module__": kind.__module__})


def _zero_grad(self: torch.optim.Optimizer) -> None:
    """What torch's own does by default, without its checks for other devices."""
    for group in self.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def read_optimizer(optimizer: Any, layer: nn.Linear | None) -> OptimizerReading:
    """Read the settings of an optimizer over the weights of the layer; what was read already is returned as it is.

    Raises:
        DataTypeError: not a ``torch.optim.Optimizer``.
        InputError: an optimizer over other parameters than those of the layer.
    """
    if isinstance(optimizer, OptimizerReading):
        return optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise DataTypeError(
            f"optimizer is a {type(optimizer).__name__}; a torch.optim.Optimizer is needed, such as "
            "torch.optim.SGD(model.parameters(), lr=0.1)."
        )
    if layer is None:
        raise InputError("optimizer= was given without model=; pass the model whose parameters it holds.")

    names = {id(parameter): name for name, parameter in layer.named_parameters()}
    where = _groups(optimizer, names)
    _check_rates(optimizer)
    weight = where.get("weight") or where.get("bias") or optimizer.param_groups[0]
    bias = where.get("bias", weight)
    states = {names[id(p)]: state for p, state in optimizer.state.items() if id(p) in names}
    buffers = {key: state["momentum_buffer"] for key, state in states.items() if _is_tensor(state, "momentum_buffer")}
    groups = tuple(tuple(names[id(p)] for p in group["params"]) for group in optimizer.param_groups)

    return OptimizerReading(
        name=type(optimizer).__name__,
        kind=kind_of(type(optimizer)),
        settings={key: copy.deepcopy(value) for key, value in weight.items() if key != "params"},
        bias_decay=float(bias.get("weight_decay", 0.0)),
        no_closed_form=_no_closed_form(weight, bias),
        frozen=tuple(name for name, _ in layer.named_parameters() if name not in where),
        iterations=max((int(state.get("n_iter", 0)) for state in states.values()), default=0),
        momentum_buffers={key: buffer.detach().to(torch.float64, copy=True) for key, buffer in buffers.items()},
        groups=groups,
        make=_recipe(optimizer, groups),
    )


def _is_tensor(state: Mapping[str, Any], key: str) -> bool:
    return isinstance(state.get(key), Tensor)


def _groups(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """The parameter group of each parameter that is trained, by name.

    Raises:
        InputError: the optimizer holds a parameter of another model.
    """
    where: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in names:
                raise InputError(
                    f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that does not belong to "
                    "the model; build it over model.parameters(), and pass the same model."
                )
            if parameter.requires_grad:
                where[names[id(parameter)]] = group
    return where


def _check_rates(optimizer: torch.optim.Optimizer) -> None:
    """Refuse learning rates that no step can be made with; torch takes them.

    Raises:
        InputError: a learning rate that is NaN or infinite.
    """
    for group in optimizer.param_groups:
        lr = float(group.get("lr", 0.0))
        if not math.isfinite(lr):
            raise InputError(f"the optimizer has lr={lr}, with which the first step is not finite; pass a finite one.")


def _no_closed_form(weight: Mapping[str, Any], bias: Mapping[str, Any]) -> str:
    for key in ("lr", "momentum", "nesterov", "dampening", "weight_decay"):
        ours, theirs = weight.get(key), bias.get(key)
        if ours != theirs:
            return f"weight and bias differ in {key}, {ours:g} and {theirs:g}"
    momentum, dampening = weight.get("momentum", 0.0), weight.get("dampening", 0.0)
    if momentum and not 0 <= dampening < 1:
        return f"dampening={dampening:g} is not below 1"
    if not 0 <= momentum < 1:
        return f"momentum={momentum:g} is not below 1"
    return ""


#: Settings that only change where and how a step is computed, not what it does, for a rehearsal on the CPU.
_PLAIN = {"foreach": False, "fused": None, "capturable": False, "differentiable": False}


def _recipe(
    optimizer: torch.optim.Optimizer, groups: tuple[tuple[str, ...], ...]
) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes the optimizer again over other parameters, with its settings and a copy of its state."""
    kind = without_compiler(type(optimizer))
    # AdamW keeps a default that it does not take; whatever is left out here comes with the state.
    taken = inspect.signature(type(optimizer)).parameters
    settings = {key: copy.deepcopy(value) for key, value in optimizer.defaults.items() if key in taken}
    settings |= {key: value for key, value in _PLAIN.items() if key in settings}
    # A deep copy: loading hands out the user's own tensors otherwise.
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.update({key: value for key, value in _PLAIN.items() if key in group})

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        by_name = dict(zip(("weight", "bias"), parameters, strict=False))
        twin = kind([{"params": [by_name[name] for name in names]} for names in groups], **settings)
        twin.load_state_dict(copy.deepcopy(state))
        return twin

    return make
