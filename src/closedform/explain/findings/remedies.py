"""Code to paste, shared by findings."""

from __future__ import annotations

from closedform.explain.facts import Facts

__all__ = ["closed_form", "standardise"]


def closed_form(facts: Facts) -> str:
    """Put the layer at the minimiser."""
    if facts.model is not None and facts.l2 == 0:
        return "import closedform as cf\n\nsol = cf.fit_(model, X, Y)   # the exact minimiser, certified\nprint(sol)"
    options = (", bias=True" if facts.bias else "") + (f", l2={facts.l2:g}" if facts.l2 else "")
    return f"import closedform as cf\n\nsol = cf.solve(X, Y{options})   # the exact minimiser, certified\nprint(sol)"


def standardise(facts: Facts) -> str:
    """Normalise the features, and say what becomes of the weights."""
    if facts.bias:
        return (
            "mean, std = X.mean(0), X.std(0).clamp_min(1e-12)\n"
            "train(model, (X - mean) / std)          # then undo it in the layer:\n"
            "with torch.no_grad():\n"
            "    model.weight.div_(std)\n"
            "    model.bias.sub_(model.weight @ mean)"
        )
    return (
        "size = X.square().mean(0).sqrt().clamp_min(1e-300)\n"
        "train(model, X / size)                  # then undo it in the layer:\n"
        "with torch.no_grad():\n"
        "    model.weight.div_(size)"
    )
