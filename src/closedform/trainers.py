"""The door for training loops of Lightning: ``FitHead``, a callback that fits a head exactly at the end of an epoch.

Lightning is imported when ``FitHead`` is first asked for, and is not needed by anything else.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from closedform.fit.accumulator import Accumulator
from closedform.fit.layers import check_linear, check_writable, linear_layers, round_to, write
from closedform.fit.request import check_ridge
from closedform.fit.solution import Solution
from closedform.fit.weights import Weights
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.errors import InputError, MissingExtraError
from closedform.words.metrics import flat_floats

if TYPE_CHECKING:
    FitHead: Any

__all__ = ["FitHead", "HeadFitting"]


class HeadFitting(ABC):  # noqa: B024  # FitHead below makes it whole, once Lightning is there
    """What ``closedform.trainers.FitHead`` does, which is this as a Lightning ``Callback``.

    At the end of each training epoch what reaches the head is folded into a triangle, one pass over the loader with the
    module in evaluation mode; the head is put at the least-squares solution of all rows, and how far it had been from
    it is logged as ``head/loss``, ``head/optimal_loss``, ``head/excess_loss``, ``head/condition`` and
    ``head/certified``; for integer labels, which are fitted as one-hot rows, also ``head/accuracy`` on those rows
    before and ``head/fitted_accuracy`` after, which takes a second pass.

    Features narrower than float64 are results of rounding: directions that they vary in by no more than that (behind a
    LayerNorm they all sum to the same) leave the head as it is there, with the weights nearest to its own.

    With several processes each reads its own loader and only triangles travel; all end with the same head and the same
    numbers, or with the same error. Rows that a ``DistributedSampler`` repeats to make its parts even count twice.

    Args:
        head: Name of the layer in the module (``"model.fc"``), or None for its last ``nn.Linear``.
        loader: What yields ``(inputs, targets)``; None for the training loader of the trainer.
        l2: Ridge strength as in :func:`closedform.solve`.
        fit: Whether to write the head; else the gap is only logged.
        prefix: What the names that are logged begin with.

    Attributes:
        solution: The solution of the last epoch, or None.

    Raises:
        InputError: no such layer, or a strength that cannot be used.

    Example::

        from closedform.trainers import FitHead

        trainer = lightning.Trainer(callbacks=[FitHead("head")])
    """

    solution: Solution | None = None

    def __init__(
        self,
        head: str | None = None,
        *,
        loader: Iterable[Any] | None = None,
        l2: float = 0.0,
        fit: bool = True,
        prefix: str = "head",
    ) -> None:
        super().__init__()
        self.head, self.loader, self.fit, self.prefix = head, loader, fit, prefix
        self.l2 = check_ridge(l2, 1)[0]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Fit the head, and log how far it was from the minimum.

        Args:
            trainer: Whose training loader is read.
            pl_module: Whose head is fitted; it is called once for each batch.

        Raises:
            InputError: no rows, targets that are neither labels nor fit the head, or processes that
                ``torch.distributed`` does not know.
        """
        several = getattr(trainer, "world_size", 1) > 1
        peers = ProcessGroup(torch.distributed.group.WORLD) if several else None
        loader = trainer.train_dataloader if self.loader is None else self.loader

        prepared = _prepared(trainer, pl_module)

        def read() -> tuple[nn.Linear, _Sums]:
            layer = _find(pl_module, self.head)
            sums = _Sums(layer)
            for features, targets in _reaching(pl_module, layer, loader, prepared):
                sums.add(features, targets)
            return layer, sums

        layer, sums = read() if peers is None else peers.together(read)
        if peers is not None:
            sums = sums.merged(peers)
        solution = sums.accumulator.solve(self.l2, nearest_to=layer, rcond=sums.rounding or None)

        found = sums.compare(Weights(solution.weight, solution.bias), self.l2)
        found |= {"condition": solution.certificate.condition, "certified": solution.outcome.certified}
        if self.fit:
            kind = layer.weight.dtype
            write(layer, round_to(solution.weight, kind), None if solution.bias is None else solution.bias.to(kind))
            if sums.labels:
                found["fitted_accuracy"] = _accuracy(pl_module, layer, loader, peers, prepared)
        self.solution = solution
        logged = {f"{self.prefix}/{name}": value for name, value in flat_floats(found).items()}
        # Equal on all processes as it is, so that their mean, which Lightning asks for, changes nothing.
        pl_module.log_dict(logged, sync_dist=peers is not None)


@final
class _Sums:
    """What one pass over the rows finds: their triangle, and how well the present head does."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        bias, device = layer.bias is not None, layer.weight.device
        self.accumulator = Accumulator(layer.in_features, layer.out_features, bias=bias, device=device)
        self.present = Weights.of_layer(layer, device)
        self.labels = False
        self.squares = self.rounding = 0.0
        self.rows = self.right = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Raises:
            InputError: targets that are neither labels of its outputs nor of the shape of the head's output.
        """
        X = features.reshape(-1, self.layer.in_features).to(torch.float64)
        scores = nn.functional.linear(X, self.present.weight, self.present.bias)
        if not targets.is_floating_point() and targets.numel() == X.shape[0] and self.layer.out_features > 1:
            codes = targets.reshape(-1).long()
            if not 0 <= int(codes.min()) <= int(codes.max()) < self.layer.out_features:
                raise InputError(
                    f"the targets hold the labels {int(codes.min())} to {int(codes.max())}, and the head has "
                    f"{self.layer.out_features} outputs; name the layer that they are for, FitHead('name')."
                )
            self.labels = True
            self.right += int((scores.argmax(1) == codes).sum())
            targets = nn.functional.one_hot(codes, self.layer.out_features)
        if targets.numel() != scores.numel():
            raise InputError(
                f"the targets have shape {tuple(targets.shape)}, and the head gives {tuple(scores.shape)}; FitHead "
                "takes integer labels, or targets of the shape of the head's output."
            )

        Y = targets.reshape(scores.shape).to(scores)
        self.accumulator.fold(X, Y)
        self.squares += float((scores - Y).square().sum())
        self.rows += X.shape[0]
        if features.dtype != torch.float64:
            self.rounding = max(self.rounding, torch.finfo(features.dtype).eps)

    def merged(self, peers: ProcessGroup) -> _Sums:
        """Return the sums of all processes, merged in the order of their ranks, so that all have the same bits.

        Args:
            peers: The processes.

        Raises:
            InputError: no process has a row.
        """
        state = {name: value.cpu() for name, value in self.accumulator.state_dict().items()}
        whole = _Sums(self.layer)
        mine = (state, self.labels, self.squares, self.rows, self.right, self.rounding)
        for each, labels, squares, rows, right, rounding in peers.each(mine):
            whole.accumulator.merge(_Sums(self.layer).accumulator.load_state_dict(each))
            whole.labels |= labels
            whole.squares += squares
            whole.rows += rows
            whole.right += right
            whole.rounding = max(whole.rounding, rounding)
        return whole

    def compare(self, best: Weights, l2: float) -> dict[str, Any]:
        """Return the loss of the present head, and what it is above the minimum: the length of the step to there."""
        triangle = self.accumulator.triangle.unscaled()
        step = self.present.minus(best)
        count = self.rows * self.layer.out_features
        excess = float((triangle.R @ step.stacked().to(triangle.R)).square().sum())
        excess += l2 * float(step.weight.square().sum())
        loss = (self.squares + l2 * float(self.present.weight.square().sum())) / count
        # Not the difference of both, of which nothing is left where the head is far off.
        least = float((triangle.C - triangle.R @ best.stacked().to(triangle.R)).square().sum())
        least += float(triangle.residual_squares.sum()) + l2 * float(best.weight.square().sum())
        found = {"loss": loss, "optimal_loss": least / count, "excess_loss": excess / count}
        return found | ({"accuracy": self.right / self.rows} if self.labels else {})


def _find(module: nn.Module, name: str | None) -> nn.Linear:
    """Return the head.

    Raises:
        InputError: there is none, or none of that name.
    """
    layers = linear_layers(module)
    if name is None and layers:
        layer: Any = layers[-1][1]
    elif name is not None and name in dict(layers):
        layer = dict(layers)[name]
    else:
        names = ", ".join(known for known, _ in layers) or "none"
        raise InputError(f"head={name!r} is no nn.Linear of the module; it has {names}.")
    check_linear(layer, "head")
    check_writable(layer, "head")
    return layer


@final
@dataclass(frozen=True)
class _Prepared:
    """What Lightning does around a training step.

    Attributes:
        batch: Makes of a batch of the loader what the step is given: in the precision of the training, on its device,
            after the module's own hooks.
        forward: Returns the context that the step is taken in.
    """

    batch: Callable[[Any], Any]
    forward: Callable[[], AbstractContextManager[Any]]


def _prepared(trainer: Any, module: Any) -> _Prepared:
    plugin, strategy = getattr(trainer, "precision_plugin", None), getattr(trainer, "strategy", None)
    if plugin is None or strategy is None:
        return _Prepared(lambda batch: batch, nullcontext)

    def batch_of(batch: Any) -> Any:
        return strategy.batch_to_device(module.on_before_batch_transfer(plugin.convert_input(batch), 0), None, 0)

    return _Prepared(batch_of, plugin.forward_context)


def _reaching(
    module: nn.Module, layer: nn.Linear, loader: Iterable[Any], prepared: _Prepared
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield what reaches the head, with the targets, in evaluation mode and without gradients.

    Raises:
        InputError: batches that are no pairs, or a head that is not called once for a batch.
    """
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        for number, loaded in enumerate(loader):
            batch = prepared.batch(loaded)
            if not (isinstance(batch, tuple | list) and len(batch) == 2):
                raise InputError(f"batch {number} is a {type(batch).__name__}; pairs (inputs, targets) are needed.")
            inputs, targets = (part.to(layer.weight.device) if isinstance(part, Tensor) else part for part in batch)

            seen.clear()
            with torch.no_grad(), prepared.forward():
                module(inputs)
            if len(seen) != 1:
                raise InputError(f"the head was called {len(seen)} times for one batch; exactly one call is needed.")
            yield seen[0], targets
    finally:
        handle.remove()
        for part, mode in modes.items():
            part.training = mode


def _accuracy(
    module: nn.Module, layer: nn.Linear, loader: Iterable[Any], peers: ProcessGroup | None, prepared: _Prepared
) -> float:
    right = rows = 0
    for features, targets in _reaching(module, layer, loader, prepared):
        said = nn.functional.linear(features.to(layer.weight), layer.weight.detach(), layer.bias).argmax(-1)
        right += int((said.reshape(-1) == targets.reshape(-1)).sum())
        rows += targets.numel()
    counts = [(right, rows)] if peers is None else peers.each((right, rows))
    return sum(count for count, _ in counts) / sum(count for _, count in counts)


def __getattr__(name: str) -> Any:
    if name != "FitHead":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError as error:
        raise MissingExtraError("lightning", "lightning", "FitHead") from error
    # Made here and not above, so that nothing else waits for Lightning, which takes seconds to load.
    made = type(name, (HeadFitting, Callback), {"__module__": __name__, "__doc__": HeadFitting.__doc__})
    globals()[name] = made
    return made
