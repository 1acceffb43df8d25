"""Pure functions on tensors: no input or output, no policy."""
