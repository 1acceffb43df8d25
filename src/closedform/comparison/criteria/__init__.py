"""Optimizers trained on another convex criterion than squared error, beside its exact minimiser."""
