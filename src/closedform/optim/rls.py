"""The optimizer: recursive least squares behind the interface of ``torch.optim``.

What happens in one turn of the user's loop, in this order:

    layer(x)            forward_hook.py   the hook keeps x, and hands out the output as a Followed tensor
    loss = f(out, y)    following.py      every function of it is seen: targets, sums and means; each scalar gets a hook
    loss.backward()     following.py      the hook of the outermost scalar fires first, while the graph is whole:
                        curvature.py      is it a squared error (degree.py), and of what scale (reductions.py)
                        batch.py          the gradient arrives at the output: rows, targets, weights are delivered
    opt.step()          memory.py         rows are folded in; few_rows.py while they are few, then a triangle
                        state.py          layer and state are written together, or neither
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from closedform.engine.tracing import untraced
from closedform.fit.accumulator import Accumulator
from closedform.fit.layers import round_to, write
from closedform.optim.arrived import Arrived, Waiting
from closedform.optim.batch import Batch, separate_weights, to_batch
from closedform.optim.call import Call
from closedform.optim.few_rows import FewRows
from closedform.optim.following import NOT_FOLLOWED
from closedform.optim.forward_hook import ForwardHook
from closedform.optim.layer import find_linear
from closedform.optim.memory import Memory, going_on, init, mark, update
from closedform.optim.processes import find_peers, share_rows
from closedform.optim.settings import check_count, check_group, check_precision, check_strength, to_number
from closedform.optim.state import of_memory, portable, restored, to_memory
from closedform.optim.surprises import Surprises
from closedform.words.errors import ClosedformError, InputError
from closedform.words.numbers import plural

__all__ = ["RecursiveLeastSquares"]


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
            It stands against all rows seen, and rows that come again count again: E epochs end at the ridge of
            ``l2 / E``. One epoch is enough; or pass ``l2`` times the number of epochs.
        forgetting: In (0, 1]. Every step multiplies the weight of earlier rows by it; below 1 for drifting data.
        lr: Part of the way to the solution that a step goes; not the rate of SGD or Adam. Leave it at 1, without a
            scheduler: with 1e-3 the layer crawls. The first step with another one warns.
        dtype: Precision of the state and of all work, ``torch.float64`` or ``torch.float32``.
        accumulator: Rows that were folded before, which count with those to come, or None.
        group: The group of ``torch.distributed`` whose processes train together; default: all, where it is initialised.
        sync_every: How many steps there are from one exchange to the next, the same on all processes. The layer moves
            at the exchange; in between it stays, and the rows wait. Call :meth:`sync` after the last step.

    Raises:
        InputError: no single layer, shared, frozen or reparametrised weights, arguments out of range. ``step()`` raises
            it, with layer and state unchanged, for a loss that is not a squared error (and says why), empty batches,
            weights of elements that are not rows times targets, layers that differ between processes, and where no rows
            arrived.
        NonFiniteError: from ``step()``, for NaN or infinities in a batch; layer and state unchanged.
        DataTypeError: not a module, or without storage of its own: lazy, on the meta device, sharded (FSDP2) or
            quantised; a setting that is no number.

    Rows count, each of them, also where they are equal. Where ``torch.distributed`` runs with several processes (DDP),
    every step folds the rows of all of them, in the order of their ranks: all end with the same bits, and with the
    weights of one process that saw all rows. What travels is never more than a triangle, ``8 * columns * (columns +
    targets)`` bytes, up a tree of the processes and back. What is wrong on one is raised on all, and none is changed. A
    ``DistributedSampler`` repeats rows to make its parts even, and repeated rows count; ``drop_last=True`` leaves some
    out instead.

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
        group: Any = None,
        sync_every: int = 1,
        accumulator: Accumulator | None = None,
    ) -> None:
        layer = find_linear(module)
        find_peers(group)
        self.sync_every = check_count("sync_every", sync_every)
        strength = check_strength(l2)
        self.dtype = check_precision(dtype)
        # A tensor stays one, as in torch, so that it can be changed from outside.
        rate = lr if isinstance(lr, Tensor) else to_number("lr", lr)
        defaults = {"lr": rate, "l2": strength, "forgetting": to_number("forgetting", forgetting)}
        check_group(defaults, strength)

        parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        self.layer = layer
        self.l2 = strength
        self._group = group
        super().__init__(parameters, defaults)
        if accumulator is not None:
            self._go_on(accumulator)
        self._attach()

    def _go_on(self, accumulator: Accumulator) -> None:
        """Start from rows that were folded before.

        Raises:
            InputError: they are not of this layer, or no accumulator.
        """
        layer, bias = self.layer, self.layer.bias is not None
        if not isinstance(accumulator, Accumulator):
            raise InputError(f"accumulator is a {type(accumulator).__name__}; a closedform.Accumulator is needed.")
        if (accumulator.n_features, accumulator.n_targets, accumulator.bias) != (
            layer.in_features,
            layer.out_features,
            bias,
        ):
            raise InputError(f"the layer is {layer}, but this is an {accumulator}.")
        memory = going_on(self._present(), self.l2, bias, accumulator.triangle)
        self.state[layer.weight] = {**self._fresh(), **of_memory(memory)}

    @property
    def accumulator(self) -> Accumulator:
        """The rows seen so far as a :class:`closedform.Accumulator`, to be solved, merged and saved.

        Raises:
            InputError: the layer has no bias, so that the means of the rows are not known; or with l2 or forgetting,
                where the triangle holds more than the rows.
        """
        layer, forgetting = self.layer, to_number("forgetting", self.param_groups[0]["forgetting"])
        if layer.bias is None or self.l2 > 0 or forgetting < 1:
            raise InputError(
                "this optimizer holds no accumulator: the layer needs a bias, l2 must be 0 (pass it to "
                "accumulator.solve) and forgetting 1. Fold the batches into a cf.Accumulator beside it."
            )
        self._refuse_waiting("accumulator")
        held = to_memory(self.state.get(layer.weight) or self._fresh()).held
        triangle = held.triangle() if isinstance(held, FewRows) else held
        triangle = replace(triangle, weight_sum=float(triangle.R[:1, :1].square().sum()), has_ones=True).padded()
        state = {name: value.double() for name, value in triangle.state_dict().items()}
        for name in ("exponents", "target_exponents"):
            state[name] = triangle.state_dict()[name]
        made = Accumulator(layer.in_features, layer.out_features, bias=True, device=layer.weight.device)
        return made.load_state_dict({**state, "bias": torch.tensor(True, device="cpu")})

    def _attach(self) -> None:
        self._pending: list[Batch | ClosedformError] = []
        self._waiting: Waiting | None = None
        self._surprises = Surprises()
        handle = self.layer.register_forward_hook(ForwardHook(self.deliver), with_kwargs=True)
        weakref.finalize(self, handle.remove)

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise InputError("one optimizer serves one layer; make another RecursiveLeastSquares for the other layer.")
        super().add_param_group(param_group)

    @override
    def zero_grad(self, set_to_none: bool = True) -> None:
        self._pending = []  # rows whose gradients were not used by step() are dropped with them
        super().zero_grad(set_to_none)

    @torch.no_grad()
    @override
    @untraced
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        try:
            self._check_parameters()
            if not self._is_primed_by_torch():
                self._take(self._batches, self.sync_every)
        except Exception:
            self._pending = []  # what cannot be used is not tried again; an interrupted step can be
            raise
        return loss

    @torch.no_grad()
    def sync(self) -> None:
        """Fold the rows that wait for the next exchange, on all processes; all of them call it together.

        With ``sync_every`` above 1 it is needed after the last step, and before :meth:`state_dict`. Where nothing waits
        on any process, nothing happens.

        Raises:
            InputError: as ``step()``.

        Example:
            >>> import torch
            >>> layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
            >>> opt = RecursiveLeastSquares(layer, sync_every=10)
            >>> torch.nn.functional.mse_loss(layer(torch.ones(1, 1).double()), torch.ones(1, 1).double()).backward()
            >>> opt.step()
            >>> opt.sync()
            >>> round(layer.weight.item(), 12)
            1.0
        """
        self._check_parameters()
        if self._waiting is not None or find_peers(self._group) is not None:
            self._take(None, 1)

    def deliver(self, call: Call | ClosedformError) -> None:
        """Take what a backward pass brought; what is wrong with it is raised by ``step()``.

        Args:
            call: The call of the layer whose gradient arrived, or why it is not known.
        """
        if isinstance(call, ClosedformError):
            self._pending.append(call)
            return
        found = None if call.inputs is None else call.found or call.refusal
        if found is None or isinstance(found, ClosedformError):
            self._pending.append(found or InputError(NOT_FOLLOWED))
        else:
            try:
                self._pending.append(to_batch(call, found, self.layer.bias is not None, self.dtype))
            except ClosedformError as error:
                self._pending.append(error)
        # The loss may be kept by the user for long; the rows need not.
        call.close()

    def _batches(self) -> list[Batch]:
        batches = []
        for item in self._pending:
            if isinstance(item, ClosedformError):
                raise item
            batches.append(item)
        if not batches:
            raise InputError(
                "step() has no rows: since the last step the layer was not called with gradients enabled, or "
                "backward() was not called on a loss of its output. A compiled model that was called before this "
                "optimizer was made does not know of it: compile it after that."
            )
        return batches

    def _take(self, batches: Callable[[], list[Batch]] | None, every: int) -> None:
        """Take rows that arrived, and fold all that wait where it is time to.

        Args:
            batches: Returns them; None where there are none.
            every: How many steps there are from one exchange to the next.
        """
        state = self.state.get(self.layer.weight) or self._fresh()
        before, peers = self._waiting, find_peers(self._group)
        own: list[Arrived] = []

        def waiting() -> Waiting:
            if before is not None and before.failure is not None:
                raise before.failure
            if batches is None:
                return before or self._none()
            new = self._arrived(batches(), state)
            own.append(new.arrived)
            return new if before is None else before.then(new)

        if batches is not None and (before.steps if before else 0) + 1 < every:
            self._wait(self._until_exchange(waiting, together=peers is not None))
            return
        if peers is None:
            made = waiting()
        else:
            group = {name: to_number(name, self.param_groups[0][name]) for name in ("lr", "forgetting", "l2")}
            try:
                made = share_rows(peers, waiting, self._present(), group)
            except Exception:
                self._waiting = None  # dropped on all processes, like the rows of one step that cannot be used
                raise
        self._update(made, own, state)

    def _until_exchange(self, waiting: Callable[[], Waiting], *, together: bool) -> Waiting:
        """Return what waits; of several processes, what is wrong on one has to wait for the others as well.

        Raises:
            ClosedformError: something is wrong, and there are no others.
        """
        try:
            made = waiting()
        except ClosedformError as error:
            if not together:
                raise
            before = self._waiting or self._none()
            return replace(before, steps=before.steps + 1, failure=error)
        return replace(made, arrived=made.arrived.compressed())

    def _arrived(self, batches: list[Batch], state: dict[str, Any]) -> Waiting:
        """Return the rows of batches, each times the root of its weight."""
        group, layer = self.param_groups[0], self.layer
        check_group(group, self.l2)
        forgetting = to_number("forgetting", group["forgetting"])
        weight = torch.cat([batch.weight for batch in batches])
        before = state["target_weight"] if state["step"] else None
        if before is None and self._waiting is not None:
            before = self._waiting.target_weight
        row_weight, target_weight = separate_weights(weight, before, self.l2, layer.weight.dtype)
        if row_weight is None:
            return replace(self._none(), faded=forgetting, steps=1)  # Every row has weight zero: nothing was said.

        root = row_weight.sqrt().unsqueeze(1)
        counted = row_weight > 0
        A = (torch.cat([batch.A for batch in batches]) * root)[counted]
        B = (torch.cat([batch.Y for batch in batches]) * root)[counted]
        exact = all(batch.exact for batch in batches)
        return Waiting(Arrived(A, B), target_weight, exact, forgetting, 1, mark(A, B))

    def _none(self) -> Waiting:
        present = self._present()
        return Waiting(Arrived(present.T[:0], present[:0]), None, exact=True, faded=1.0, steps=0, mark=1)

    def _wait(self, waiting: Waiting | None) -> None:
        """Keep rows for the next exchange, or leave all as it was: an interrupt may come between any two lines."""
        before = self._pending, self._waiting
        try:
            self._waiting = waiting
            self._pending = []
        except BaseException:
            self._pending, self._waiting = before
            raise

    def _update(self, new: Waiting, own: list[Arrived], state: dict[str, Any]) -> None:
        """Compute all that is new, and only then change anything."""
        if not new.arrived.rows:
            self._wait(None)
            return
        group, layer = self.param_groups[0], self.layer
        rate = to_number("lr", group["lr"])
        memory, present = self._read(state)
        memory = update(memory, new, l2=self.l2, bias=layer.bias is not None)
        aim = memory.weights if rate == 1 else present + rate * (memory.weights - present)
        memory = replace(memory, weights=aim, settled=rate == 1)

        state = {
            **of_memory(memory),
            "targets": "exact" if new.exact and state["targets"] == "exact" else "from gradients",
            "target_weight": new.target_weight,
            "step": state["step"] + new.steps,
        }
        self._commit(aim, state)
        for rows in own:
            self._surprises.tell(rate, self.l2, new.faded, rows.A, rows.B)

    def _commit(self, aim: Tensor, state: dict[str, Any]) -> None:
        """Write the layer and the state, or neither: an interrupt may come between any two lines."""
        layer = self.layer
        rounded = round_to(aim, layer.weight.dtype)
        weight, bias = (rounded.T, None) if layer.bias is None else (rounded[1:].T, rounded[0])
        before = layer.weight.detach().clone(), None if layer.bias is None else layer.bias.detach().clone()
        pending, waiting, entries = self._pending, self._waiting, dict(self.state)
        try:
            write(layer, weight, bias)
            self.state[layer.weight] = state
            if layer.bias is not None:
                self.state[layer.bias] = {"step": state["step"]}  # its weights are kept with the others
            self._waiting = None
            self._pending = []
        except BaseException:
            write(layer, *before)
            self.state.clear()
            self.state.update(entries)
            self._pending, self._waiting = pending, waiting
            raise

    def _read(self, state: dict[str, Any]) -> tuple[Memory, Tensor]:
        """The memory, with the weights the layer really has: they may have been changed by others.

        Raises:
            InputError: the layer was moved to another device.
        """
        present = self._present()
        memory = to_memory(state)
        if memory.weights.device != present.device:
            raise InputError(
                f"the layer is on {present.device} but the rows seen are on {memory.weights.device}; save "
                "opt.state_dict() before moving the layer and load it into a new optimizer afterwards."
            )
        if torch.equal(memory.weights.to(self.layer.weight.dtype).to(self.dtype), present):
            return memory, memory.weights
        # Before the first row there is nothing that the weights could disagree with.
        return replace(memory, weights=present, settled=memory.held.rows == 0), present

    def _present(self) -> Tensor:
        """The layer's parameters as ``(columns, targets)`` in the working precision."""
        weight, bias = self.layer.weight.detach().to(self.dtype), self.layer.bias
        rows = weight.T if bias is None else torch.cat([bias.detach().to(self.dtype).unsqueeze(0), weight.T])
        return rows.contiguous()

    def _fresh(self) -> dict[str, Any]:
        """The state before the first row."""
        present = self._present()
        memory = init(present, self.l2, self.layer.bias is not None)
        return {**of_memory(memory), "targets": "exact", "target_weight": torch.zeros_like(present[0]), "step": 0}

    def _is_primed_by_torch(self) -> bool:
        """Whether this is the step by which ``torch.distributed.checkpoint`` makes the state: no rows, rate 0."""
        parameters = self.param_groups[0]["params"]
        idle = to_number("lr", self.param_groups[0]["lr"]) == 0 and not self._pending
        if not idle or any(p.grad is None or bool(p.grad.any()) for p in parameters):
            return False
        if not self.state.get(self.layer.weight):
            for parameter in parameters:
                self.state[parameter] = {"step": 0}
            self.state[self.layer.weight] = self._fresh()
        return True

    def _check_parameters(self) -> None:
        given = self.param_groups[0]["params"]
        held = [self.layer.weight] if self.layer.bias is None else [self.layer.weight, self.layer.bias]
        if len(given) != len(held) or any(a is not b for a, b in zip(given, held, strict=True)):
            raise InputError("the layer's parameters were replaced after the optimizer was made; make a new optimizer.")
        if not all(parameter.requires_grad for parameter in held):
            raise InputError("a parameter of the layer was frozen (requires_grad=False); weight and bias go together.")

    @override
    def state_dict(self) -> dict[str, Any]:
        self._refuse_waiting("state_dict()")
        # Before the hooks of the user, which are to see what is saved.
        handle = self.register_state_dict_post_hook(_to_portable, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def _refuse_waiting(self, what: str) -> None:
        """Refuse to hand out a state that lacks rows: those of other processes are not known here.

        Raises:
            InputError: rows wait for the next exchange.
        """
        if self._waiting is not None:
            raise InputError(
                f"rows of {plural(self._waiting.steps, 'step')} wait for the next exchange (sync_every="
                f"{self.sync_every}), and {what} would lack them: call sync() first, on every process."
            )

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # torch casts a state to the dtype of the parameter, which would round the triangle. So what is loaded is taken
        # behind the hooks of the user that change it, and put in place before those that look at it.
        taken: list[dict[str, Any]] = []
        first = self.register_load_state_dict_pre_hook(lambda _, loaded: taken.append(self._checked(loaded)))
        last = self.register_load_state_dict_post_hook(lambda _: self._restore(taken[-1]), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            first.remove()
            last.remove()

    def _checked(self, loaded: dict[str, Any]) -> dict[str, Any]:
        settings = [name for group in loaded["param_groups"] for name in group if name != "params"]
        if "forgetting" not in settings:
            raise InputError(f"the state is not one of RecursiveLeastSquares; its settings are {', '.join(settings)}.")
        saved = [dict(entry) for entry in loaded["state"].values() if entry]
        if not saved:
            return {}
        shape = tuple(self._present().shape)
        if "weights" in saved[0] and tuple(saved[0]["weights"].shape) != shape:
            raise InputError(
                f"the state is of a layer with {tuple(saved[0]['weights'].shape)} (columns, targets), "
                f"this one has {shape}."
            )
        return restored(saved[0], self.layer.weight.device)

    def _restore(self, state: dict[str, Any]) -> None:
        self.l2 = check_strength(self.param_groups[0]["l2"])
        if state:
            self.dtype = state["weights"].dtype
            self.state[self.layer.weight] = state
        self._waiting = None

    def __getstate__(self) -> dict[str, Any]:
        if self._group is not None:
            raise InputError(
                "an optimizer with a group= of its own cannot be copied or pickled, as a process group cannot: save "
                "its state_dict(), and load that into a new RecursiveLeastSquares(..., group=...)."
            )
        self._refuse_waiting("a copy")
        kept = {"layer": self.layer, "l2": self.l2, "dtype": self.dtype, "sync_every": self.sync_every}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("sync_every", 1)  # pickled before there was one
        if "_pending" not in self.__dict__:  # a copy or an unpickled optimizer: its layer has no hook of it yet
            self._group = None
            self._attach()


def _to_portable(_: Optimizer, state_dict: dict[str, Any]) -> None:
    state_dict["state"] = {index: portable(entry) for index, entry in state_dict["state"].items()}
