"""Real optimizers beside the closed form, in the same minutes, on the same rows."""
