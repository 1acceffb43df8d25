"""What every report can do: print itself, show itself in a notebook, write itself as a page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from closedform.report.charts import Chart
from closedform.report.document import Document
from closedform.report.text import render_text
from closedform.words.errors import SourceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ChartReport", "Report"]


class Report(ABC):
    """A result that lays itself out as documents; how they look is decided in one place for all results."""

    @abstractmethod
    def summary(self) -> Document:
        """Return what fits a screen: the verdict, the numbers behind it, what to do."""

    @abstractmethod
    def page(self) -> Document:
        """Return all there is to say, with charts and data."""

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained HTML file.

        Args:
            path: Where to; an existing file is replaced.

        Raises:
            MissingExtraError: jinja2 is not installed.
            SourceError: the file cannot be written.
        """
        from closedform.report.page import render_page

        text = render_page(self.page())
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise SourceError(f"{path} cannot be written: {error.strerror or error}.") from error

    def __str__(self) -> str:
        return render_text(self.summary())

    def _repr_html_(self) -> str:
        from closedform.report.notebook import render_cell

        return render_cell(self.page())


class ChartReport(Report, ABC):
    """A report with one chart that says most of it."""

    @abstractmethod
    def chart(self) -> Chart:
        """Return that chart."""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the chart by matplotlib, and return the axes.

        Args:
            ax: Axes to draw on; by default a new figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from closedform.report.figure import draw

        return draw(self.chart(), ax)
