"""Rows: the only floor that knows where data live, and who walks over them."""

from closedform.rows.block import Block
from closedform.rows.design import Design
from closedform.rows.first_pass import sample_gram, scan_and_sum
from closedform.rows.fold import Fold, PeakedSumFold, SumFold
from closedform.rows.norms import Scan, scan
from closedform.rows.one_hot import OneHotRows, classes_of, labelled
from closedform.rows.source import Source
from closedform.rows.table import Rows, as_rows
from closedform.rows.tensors import TensorSource

__all__ = [
    "Block",
    "Design",
    "Fold",
    "OneHotRows",
    "PeakedSumFold",
    "Rows",
    "Scan",
    "Source",
    "SumFold",
    "TensorSource",
    "as_rows",
    "classes_of",
    "labelled",
    "sample_gram",
    "scan",
    "scan_and_sum",
]
