"""Known slips of training loops, each simulated and held against the losses that the user recorded."""
