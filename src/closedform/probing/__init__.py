"""The door for linear probes: what a linear layer reads from features, and how sure one can be of it."""
