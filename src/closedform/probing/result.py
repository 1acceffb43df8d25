"""What linear probes found, and what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.probing.layout import chart_of, page_of, summary_of
from closedform.probing.record import ProbeRecord
from closedform.report.base import ChartReport
from closedform.report.charts import Chart
from closedform.report.document import Document
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats

__all__ = ["Probe"]


@final
@dataclass(frozen=True, repr=False, eq=False)
class Probe(ProbeRecord):
    """Linear probes of one layer or of many; what is asked of it without a layer is that of the best.

    Best is the one with the least leave-one-out error, so that the test rows have no say in it.

    Attributes:
        layers: The probe of each layer, in the order given.
        classes: The classes in ascending order, as outputs are numbered (of one-hot rows the names or places of their
            columns); empty for a regression.
        train_rows: Rows it was fitted to.
        confidence: Of the intervals.
        notes: What was read into the data that the user should know.
        seconds: Wall time.
    """

    def predict(self, features: Any) -> Any:
        """Return what the best layer's probe says of new rows: a list of classes, or a tensor of numbers.

        Args:
            features: Of that layer, ``(rows, features)``.

        Raises:
            InputError: other features than those of the fit.
        """
        scores = self.solution.predict(features)
        return [self.classes[place] for place in scores.argmax(-1).tolist()] if self.classes else scores

    def head(self) -> nn.Linear:
        """Return the best layer's probe as a ``torch.nn.Linear``; its outputs are numbered as ``classes``."""
        weight, bias = self.solution.weight, self.solution.bias
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
        with torch.no_grad():
            _fill_(layer.weight, weight)
            if bias is not None:
                _fill_(layer.bias, bias)
        return layer

    def metrics(self) -> dict[str, float]:
        """Return the numbers of every layer as flat floats, for trackers: those of the best, and ``layer/number``."""
        found = {**self.best.metrics(), "train_rows": float(self.train_rows), "test_rows": float(self.test_rows)}
        if len(self.layers) > 1:
            found |= flat_floats({layer.name: layer.metrics() for layer in self.layers})
        return found

    @override
    def to_dict(self) -> dict[str, Any]:
        return {
            "task": "classification" if self.classes else "regression",
            "classes": list(self.classes),
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "best": self.best.name,
            "accuracy": self.accuracy,
            "interval": None if self.interval is None else list(self.interval),
            "r_squared": plain(self.r_squared),
            "confidence": self.confidence,
            "layers": [layer.to_dict() for layer in self.layers],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    @override
    def chart(self) -> Chart:
        """Return what each layer is worth, or the ridge path of the only one, as a chart."""
        if len(self.layers) > 1:
            return chart_of(self)
        return next(block for block in self.path.section().blocks if isinstance(block, Chart))

    @override
    def summary(self) -> Document:
        return summary_of(self)

    @override
    def page(self) -> Document:
        return page_of(self)

    __repr__ = ChartReport.__str__


def _fill_(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values)
