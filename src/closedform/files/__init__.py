"""Files: one module for each format, how keys are found, and the packaged data sets."""

from closedform.files.opening import open_source

__all__ = ["open_source"]
