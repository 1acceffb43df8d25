"""The optimizer: recursive least squares behind the interface of ``torch.optim``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from closedform.fit.layers import round_to, write
from closedform.optim.curvature import Batch, to_batch
from closedform.optim.following import Call, follow, is_traced
from closedform.optim.layer import find_linear
from closedform.optim.recursion import Memory, begin, learn
from closedform.words.errors import ClosedformError, InputError

__all__ = ["RecursiveLeastSquares"]

_NOT_FOLLOWED = (
    "the loss could not be followed from the layer's output to the scalar whose backward() was called. It must be "
    "built from torch functions (no custom autograd.Function, numpy or compiled loss in between), be one number, and "
    "backward() may run once on each output."
)


@final
class RecursiveLeastSquares(Optimizer):
    r"""Keep a linear layer at the least-squares solution of all rows that passed through it.

    One step per batch is enough: after every ``step()`` the layer is at
    :math:`\arg\min_{W,b} \sum_i w_i \|y_i - W x_i - b\|^2 + l2 \|W\|^2` over the rows seen so far, and while they
    leave weights undetermined, at the minimiser nearest to the weights before. Inputs come from a forward hook; targets
    and row weights are read off the graph of the user's own loss, which must be a squared error (mean or sum, weighted,
    of any scale). A factor common to the whole loss means nothing; weights inside its mean or sum are row weights, so
    that a smaller last batch counts row for row like the others.

    State (``opt.state[layer.weight]``): the rows in square-root form, memory O(columns^2); ``"targets"`` says whether
    the targets were ``"exact"`` (the user's own tensor was seen in the loss) or ``"from gradients"``, with the rounding
    of the output's dtype. ``lr`` 1 is the full step; less is a damped one (schedulers may change it). Rows of several
    ``backward()`` calls before one ``step()`` are one batch; ``zero_grad()`` drops rows not yet used. Forward passes
    without ``backward()`` are not counted.

    Args:
        module: ``torch.nn.Linear``, or a module whose parameters are all those of one Linear (also compiled).
        l2: Ridge strength as in :func:`closedform.solve`: sum of squares plus ``l2 * |W|^2``, the bias not penalised.
        forgetting: In (0, 1]. Every step multiplies the weight of earlier rows by it; below 1 for drifting data.
        lr: Part of the way to the solution that a step goes.
        dtype: Precision of the state and of all work, ``torch.float64`` or ``torch.float32``.

    Raises:
        InputError: no single layer, shared, frozen or reparametrised weights, arguments out of range. ``step()`` raises
            it, with layer and state unchanged, for a loss that is not a squared error (and says why), empty
            batches, weights of elements that are not rows times targets, and where no rows arrived.
        NonFiniteError: from ``step()``, for NaN or infinities in a batch; layer and state unchanged.
        DataTypeError: not a module, or without storage.

    Example:
        >>> import torch, closedform as cf
        >>> from closedform.optim import RecursiveLeastSquares
        >>> layer = torch.nn.Linear(2, 1, dtype=torch.float64)
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 2.0], [5.0, 3.0]], dtype=torch.float64)
        >>> Y = X @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 3.0
        >>> opt = RecursiveLeastSquares(layer)
        >>> for x, y in zip(X, Y):
        ...     opt.zero_grad()
        ...     loss = torch.nn.functional.mse_loss(layer(x), y)
        ...     loss.backward()
        ...     _ = opt.step()
        >>> layer.weight.detach().round(decimals=10), layer.bias.detach().round(decimals=10)
        (tensor([[ 2., -1.]], dtype=torch.float64), tensor([3.], dtype=torch.float64))
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        l2: float = 0.0,
        forgetting: float = 1.0,
        lr: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        layer = find_linear(module)
        if not 0 <= l2 < math.inf:
            raise InputError(f"l2={l2} must be finite and not negative.")
        if dtype not in (torch.float64, torch.float32):
            raise InputError(f"dtype={dtype}: the rows are kept in torch.float64 or torch.float32.")
        defaults = {"lr": lr, "l2": float(l2), "forgetting": float(forgetting)}
        _check_group(defaults, float(l2))
        parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        self.layer = layer
        self.l2 = float(l2)
        self.dtype = dtype
        super().__init__(parameters, defaults)
        self._attach()

    def _attach(self) -> None:
        self._pending: list[Batch | ClosedformError] = []
        self._looked_below = False
        hook = _ForwardHook(self)
        handle = self.layer.register_forward_hook(hook, with_kwargs=True)
        weakref.finalize(self, handle.remove)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse a second group: one optimizer keeps the rows of one layer."""
        if self.param_groups:
            raise InputError("one optimizer serves one layer; make another RecursiveLeastSquares for the other layer.")
        super().add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, and drop rows whose gradients were not yet used by ``step()``."""
        self._pending.clear()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Put the layer at the solution of all rows seen, the new ones included.

        Args:
            closure: Evaluates the loss, calls ``backward()`` and returns the loss; called once.

        Returns:
            What the closure returned, or None.

        Raises:
            InputError, NonFiniteError: see the class; layer and state are as before.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pending, self._pending = self._pending, []
        self._check_parameters()
        for item in pending:
            if isinstance(item, ClosedformError):
                raise item
        batches = [item for item in pending if isinstance(item, Batch)]
        if not batches:
            raise InputError(
                "step() has no rows: since the last step the layer was not called with gradients enabled, or "
                "backward() was not called on a loss of its output. A compiled model that was called before this "
                "optimizer was made does not know of it: compile it after that."
            )
        self._update(batches)
        return loss

    def _update(self, batches: list[Batch]) -> None:
        group, layer = self.param_groups[0], self.layer
        _check_group(group, self.l2)
        weight = torch.cat([batch.weight for batch in batches])
        state = self.state[layer.weight]
        row_weight, target_weight = _separate(weight, state.get("target_weight"), self.l2, layer.weight.dtype)
        if row_weight is None:
            return  # Every row has weight zero: nothing was said.
        root = row_weight.sqrt().unsqueeze(1)
        counted = row_weight > 0
        A = (torch.cat([batch.A for batch in batches]) * root)[counted]
        B = (torch.cat([batch.Y for batch in batches]) * root)[counted]
        memory, present = self._recall(state)
        bias = layer.bias is not None
        memory = learn(memory, A, B, forgetting=float(group["forgetting"]), l2=self.l2, bias=bias)
        rate = float(group["lr"])
        aim = memory.weights if rate == 1 else present + rate * (memory.weights - present)
        self._write(aim)
        exact = all(batch.exact for batch in batches) and state.get("targets", "exact") == "exact"
        state.update({field.name: getattr(memory, field.name) for field in fields(Memory)})
        state["weights"], state["settled"] = aim, rate == 1
        state["targets"] = "exact" if exact else "from gradients"
        state["target_weight"] = target_weight
        state["step"] = state.get("step", 0) + 1

    def _recall(self, state: dict[str, Any]) -> tuple[Memory, Tensor]:
        """The memory, with the weights the layer really has: they may have been changed by others."""
        present = self._read()
        if "rows" not in state:
            return begin(present, self.l2, self.layer.bias is not None), present
        memory = Memory(**{field.name: state[field.name] for field in fields(Memory)})
        if memory.weights.device != present.device:
            raise InputError(
                f"the layer is on {present.device} but the rows seen are on {memory.weights.device}; save "
                "opt.state_dict() before moving the layer and load it into a new optimizer afterwards."
            )
        if torch.equal(memory.weights.to(self.layer.weight.dtype).to(self.dtype), present):
            return memory, memory.weights
        return replace(memory, weights=present, settled=False), present

    def _read(self) -> Tensor:
        """The layer's parameters as ``(columns, targets)`` in the working precision."""
        weight, bias = self.layer.weight.detach().to(self.dtype), self.layer.bias
        rows = weight.T if bias is None else torch.cat([bias.detach().to(self.dtype).unsqueeze(0), weight.T])
        return rows.contiguous()

    def _write(self, weights: Tensor) -> None:
        rounded = round_to(weights, self.layer.weight.dtype)
        if self.layer.bias is None:
            write(self.layer, rounded.T, None)
        else:
            write(self.layer, rounded[1:].T, rounded[0])

    def _check_parameters(self) -> None:
        given = self.param_groups[0]["params"]
        held = [self.layer.weight] if self.layer.bias is None else [self.layer.weight, self.layer.bias]
        if len(given) != len(held) or any(a is not b for a, b in zip(given, held, strict=True)):
            raise InputError("the layer's parameters were replaced after the optimizer was made; make a new optimizer.")
        if not all(parameter.requires_grad for parameter in held):
            raise InputError("a parameter of the layer was frozen (requires_grad=False); weight and bias go together.")

    def _deliver(self, call: Call | None, gradient: Tensor) -> None:
        """Take what a backward pass brought; what is wrong with it is raised by ``step()``."""
        if call is None or call.inputs is None or (call.curvature is None and call.refusal is None):
            self._pending.append(InputError(_NOT_FOLLOWED))
            return
        try:
            if call.refusal is not None:
                raise call.refusal
            self._pending.append(to_batch(call, self.layer.bias is not None, self.dtype))
        except ClosedformError as error:
            self._pending.append(error)
        # The loss may be kept by the user for long; the rows need not.
        call.inputs = call.source = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; its tensors keep their precision, whatever the layer's dtype."""
        settings = [name for group in state_dict["param_groups"] for name in group if name != "params"]
        if "forgetting" not in settings:
            raise InputError(f"the state is not one of RecursiveLeastSquares; its settings are {', '.join(settings)}.")
        saved = [dict(entry) for entry in state_dict["state"].values() if entry]
        shape = tuple(self._read().shape)
        if saved and tuple(saved[0]["weights"].shape) != shape:
            raise InputError(
                f"the state is of a layer with {tuple(saved[0]['weights'].shape)} (columns, targets), "
                f"this one has {shape}."
            )
        super().load_state_dict(state_dict)
        self.l2 = float(self.param_groups[0]["l2"])
        if saved:
            self.dtype = saved[0]["weights"].dtype
        device = self.layer.weight.device
        for entry in saved:  # torch casts state to the dtype of the parameter, which would round the triangle
            self.state[self.layer.weight] = {
                name: value.detach().clone().to(device) if isinstance(value, Tensor) else value
                for name, value in entry.items()
            }

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "layer": self.layer, "l2": self.l2, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_pending" not in self.__dict__:  # a copy or an unpickled optimizer: its layer has no hook of it yet
            self._attach()


class _ForwardHook:
    """The hook on the layer. It does not keep the optimizer alive, and copies of the layer get a hook without one."""

    def __init__(self, optimizer: RecursiveLeastSquares | None) -> None:
        self.optimizer = (lambda: None) if optimizer is None else weakref.ref(optimizer)

    def __reduce__(self) -> tuple[type[_ForwardHook], tuple[None]]:
        return _ForwardHook, (None,)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        optimizer = self.optimizer()
        if optimizer is None or not output.requires_grad or not torch.is_grad_enabled() or is_traced(output):
            return None
        reference = self.optimizer

        def deliver(call: Call | None, gradient: Tensor) -> None:
            live = reference()
            if live is not None:
                live._deliver(call, gradient)

        look_below, optimizer._looked_below = not optimizer._looked_below, True
        inputs = args[0] if args else keywords["input"]
        call = Call(inputs, output, tuple(layer.parameters(recurse=False)), look_below)
        return follow(call, inputs, deliver)


def _check_group(group: dict[str, Any], l2: float) -> None:
    if not 0 <= float(group["lr"]) < math.inf:
        raise InputError(f"lr={group['lr']} must be finite and not negative; 1 is the full step.")
    if not 0 < group["forgetting"] <= 1:
        raise InputError(f"forgetting={group['forgetting']} must be above 0 and at most 1.")
    if group["l2"] != l2:
        raise InputError(f"l2 was changed from {l2} to {group['l2']}; rows already seen hold it. Make a new optimizer.")


def _separate(
    weight: Tensor, before: Tensor | None, l2: float, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Split weights ``(rows, targets)`` into those of rows and the shares of the targets in them.

    Raises:
        InputError: they are not rows times targets, or the shares are not those of ``before``: every target would
            need a triangle of its own.
    """
    largest = weight.amax(1)
    counted = largest > 0
    if not bool(counted.any()):
        return None, before
    shares = weight[counted] / largest[counted].unsqueeze(1)
    split = shares[0] if before is None else before
    rounding = 16 * torch.finfo(dtype).eps
    if bool(((shares - split).abs() > rounding).any()) or (l2 > 0 and float(split.min()) < 1 - rounding):
        raise InputError(
            "the loss weights the targets of a row differently from row to row (a mask over targets?), or differently "
            "at all together with l2. Weights must be those of rows; fit such targets by layers of their own."
        )
    return largest, split
