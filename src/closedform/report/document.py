"""What a report says, in its order and without any format: documents of sections of blocks.

Renderers know these classes and nothing of fits: a comparison or a diagnosis lays itself out as a document where it
lives, and is then shown on a terminal, as text, as a page and in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from closedform.report.charts import Chart

__all__ = [
    "Block",
    "Code",
    "Column",
    "Controls",
    "Document",
    "Download",
    "Entry",
    "Facts",
    "Notes",
    "Paragraph",
    "Preset",
    "Section",
    "Table",
]


@final
@dataclass(frozen=True)
class Paragraph:
    """One paragraph; a quiet one is set smaller."""

    kind: ClassVar[str] = "paragraph"

    text: str
    quiet: bool = False


@final
@dataclass(frozen=True)
class Facts:
    """A few names with their values, side by side."""

    kind: ClassVar[str] = "facts"

    items: tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    kind: ClassVar[str] = "notes"

    items: tuple[str, ...]


@final
@dataclass(frozen=True)
class Code:
    """Code to copy, with a label of what it does."""

    kind: ClassVar[str] = "code"

    text: str
    label: str


@final
@dataclass(frozen=True)
class Preset:
    """Settings of plain gradient descent that a reader can put into the chart that moves."""

    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    dampening: float


@final
@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are right-aligned."""

    title: str
    numeric: bool = True


@final
@dataclass(frozen=True)
class Table:
    """Cells as strings.

    Attributes:
        columns: Their titles.
        rows: The cells.
        title: What the table shows.
        remark_title: Title of the remarks.
        remarks: A sentence for each row, which a narrow renderer sets below the table; or none at all.
        kinds: What each row is: ``emphasised``, ``helps``, ``hurts``, ...; or empty.
        presets: What each row puts into the chart that moves, or None; or empty.
    """

    kind: ClassVar[str] = "table"

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    remark_title: str = ""
    remarks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    presets: tuple[Preset | None, ...] = ()

    def wide(self) -> Table:
        """Return the table with its remarks as the last column.

        Example:
            >>> table = Table((Column("name"),), (("a",),), remark_title="why", remarks=("because",))
            >>> table.wide().rows
            (('a', 'because'),)
        """
        if not self.remarks:
            return self
        return replace(
            self,
            columns=(*self.columns, Column(self.remark_title, numeric=False)),
            rows=tuple((*row, remark) for row, remark in zip(self.rows, self.remarks, strict=True)),
            remark_title="",
            remarks=(),
        )

    def emphasised(self, row: int) -> bool:
        """Return whether a row stands out."""
        return bool(self.kinds) and self.kinds[row] == "emphasised"


@final
@dataclass(frozen=True)
class Entry:
    """A finding in words: how bad it is, what was measured, what follows, what to do."""

    kind: ClassVar[str] = "entry"

    name: str
    tone: str
    title: str
    facts: tuple[tuple[str, str], ...]
    text: str
    code: str


@final
@dataclass(frozen=True)
class Controls:
    """The fields by which a reader moves the chart that is live, as they are at first.

    Attributes:
        settings: Learning rate, momentum, Nesterov, weight decay and dampening.
        steps: Number of steps.
        last_decade: Decimal logarithm of the largest number of steps.
    """

    kind: ClassVar[str] = "controls"

    settings: Preset
    steps: int
    last_decade: float


@final
@dataclass(frozen=True)
class Download:
    """A button that saves the document's data."""

    kind: ClassVar[str] = "download"

    label: str


Block = Paragraph | Facts | Notes | Code | Table | Chart | Entry | Controls | Download


@final
@dataclass(frozen=True)
class Section:
    """Blocks under a title.

    Attributes:
        title: Its title; empty for blocks that stand without one.
        blocks: What stands in it.
        key: Its id in a page.
        tone: ``ok``, ``info``, ``warning`` or ``error`` where it is a verdict; ``headline`` for one without severity.
        name: A stable name for programs.
    """

    title: str
    blocks: tuple[Block, ...]
    key: str = ""
    tone: str = ""
    name: str = ""


@final
@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: Of the window or the file.
        about: What it is about, in one line.
        lead: What is read first.
        sections: What follows; a page has a list of them.
        data: All numbers, as plain JSON values, for programs and for the script of a page.
    """

    title: str
    about: str
    lead: tuple[Section, ...]
    sections: tuple[Section, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
