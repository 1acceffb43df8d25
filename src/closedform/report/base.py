"""What every report can do: print itself, show itself in a notebook, write itself as a page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from closedform.report.document import Document
from closedform.report.text import render_text
from closedform.words.errors import SourceError

__all__ = ["Report"]


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
