"""Rows: the only floor that knows where data live."""

from closedform.rows.design import Design
from closedform.rows.norms import Scan, scan
from closedform.rows.source import Source
from closedform.rows.table import Block, Rows, as_rows
from closedform.rows.tensors import TensorSource

__all__ = ["Block", "Design", "Rows", "Scan", "Source", "TensorSource", "as_rows", "scan"]
