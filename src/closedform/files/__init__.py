"""Files: one module for each format, how keys are found, and the packaged data sets."""

from closedform.files.csv_files import parsed_once
from closedform.files.opening import open_source
from closedform.files.paths import open_data, open_problem, split_table

__all__ = ["open_data", "open_problem", "open_source", "parsed_once", "split_table"]
