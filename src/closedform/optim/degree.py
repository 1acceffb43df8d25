"""Whether a loss is a polynomial of degree two in a layer's output by its functions, and not only at one point.

From derivatives at one point alone, many a function looks like a square: a pseudo-Huber loss near its middle, a GELU
far from it. So every function between output and loss has to be one that is known to be linear, a product or a square.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from closedform.optim.graph import Ways, name_of
from closedform.optim.reductions import degree_in_place

__all__ = ["KINKED", "why_not_quadratic", "wrong_norm"]

#: Functions with a kink or a choice by value: on one side of it they look like a squared error, on the other not.
KINKED = {
    *("Clamp", "ClampMin", "ClampMax", "Elu", "Celu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh"),
    *("HuberLoss", "LeakyRelu", "Maximum", "Minimum", "Fmax", "Fmin", "PreluKernel", "Relu", "RreluWithNoise"),
    *("RreluWithNoiseFunctional", "SmoothL1Loss", "Softshrink", "Threshold", "MultiMarginLoss", "MaxPool2D"),
    *("MultilabelMarginLoss", "Max", "Min", "Amax", "Amin", "Aminmax", "Sort", "Topk", "Kthvalue", "Median"),
    *("Nanmedian", "Mode", "Cummax", "Cummin", "Remainder", "Fmod", "Frac", "Copysign", "Round", "Floor", "Ceil"),
    *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Trunc"),
}
#: Functions that lay elements out anew, and leave each what it is.
_LAYOUTS = {
    *("Alias", "AsStrided", "Cat", "Chunk", "Clone", "Diagonal", "Expand", "Flip", "Gather", "Index"),
    *(
        "IndexSelect",
        "MaskedFill",
        "MaskedScatter",
        "MaskedSelect",
        "Permute",
        "Repeat",
        "ReshapeAlias",
        "Roll",
        "Rot90",
    ),
    *(
        "Select",
        "Slice",
        "Split",
        "SplitWithSizes",
        "Squeeze",
        "Stack",
        "T",
        "Take",
        "ToCopy",
        "Transpose",
        "Tril",
        "Triu",
    ),
    *("Unbind", "UnsafeSplit", "UnsafeSplitWithSizes", "UnsafeView", "Unsqueeze", "View", "ViewCopy", "Where"),
}
#: Functions that are linear in all they are given at once.
_LINEAR = {
    *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Add", "AvgPool2D", "AvgPool3D", "Col2Im", "Conj", "ConstantPadNd"),
    *(
        "Cumsum",
        "Deg2Rad",
        "DiagEmbed",
        "FftC2C",
        "FftC2R",
        "FftR2C",
        "FusedDropout",
        "Im2Col",
        "IndexAdd",
        "IndexCopy",
    ),
    *("IndexFill", "IndexPut", "Lift", "Mean", "NativeDropout", "Nansum", "Neg", "Rad2Deg", "Rsub", "Scatter"),
    *("ScatterAdd", "SelectScatter", "SliceScatter", "Sub", "Sum", "Trace", "Unfold", "ViewAsComplex", "ViewAsReal"),
}
#: Functions that are linear in the first input only, the others being constant.
_LINEAR_IN_ONE = {"Div", "Lerp", "LinalgSolveTriangular", "TriangularSolve"}
#: Functions that are linear in each of the inputs: degrees add up.
_PRODUCTS = {"Bmm", "Convolution", "Dot", "Linear", "Matmul", "Mm", "Mul", "Mv", "Vdot"}
#: The same with a term that is added first.
_ADDED_PRODUCTS = {"Addbmm", "Addcmul", "Addmm", "Addmv", "Addr", "Baddbmm"}
#: Squares, summed or not.
_SQUARES = {"MseLoss", "Var", "VarMean"}
#: Norms, and the attribute that holds their power.
_NORMS = {"LinalgVectorNorm": "_saved_ord", "Norm": "_saved_p", "Dist": "_saved_p"}
#: Roots of squares, which have to be squared before anything else is done with them.
_ROOTS = {"Abs", "Sqrt", "Std", *_NORMS}


def wrong_norm(way: Ways) -> str | None:
    """Return what is wrong with a norm on the way that is not the root of a sum of squares."""
    for node in way.nodes:
        power = getattr(node, _NORMS.get(name_of(node), ""), 2)
        if power != 2:
            return f"{name_of(node)} is a norm with the power {power}"
    return None


def why_not_quadratic(way: Ways, outputs: Sequence[Tensor]) -> str | None:
    """Return why the functions on the way make no square of the outputs, or None.

    Args:
        way: What stands between a loss and ``outputs``.
        outputs: Where degrees are counted from.

    Example:
        >>> import torch
        >>> from closedform.optim.graph import ways
        >>> output = torch.ones(2, requires_grad=True) * 3.0
        >>> why_not_quadratic(ways((output - 1).square().mean(), [output], []), [output])
        >>> why_not_quadratic(ways((1 + output**2).log().mean(), [output], []), [output])
        'Log is not known to be linear or a square'
    """
    degrees: dict[Any, float] = {output.grad_fn: 1.0 for output in outputs}
    users: dict[Any, list[Any]] = defaultdict(list)
    for node in way.nodes:
        inputs = [degrees.get(child, 0.0) for child, _ in node.next_functions]
        degree = _degree(node, inputs)
        if degree is None:
            name = "a function in place" if name_of(node) == "CopySlices" else name_of(node)
            return f"{name} is not known to be linear or a square"
        degrees[node] = degree
        for child, _ in node.next_functions:
            users[child].append(node)

    for node in way.nodes:
        if _is_root(node) and not _is_squared_at_once(node, users, degrees):
            kind = "an absolute value" if name_of(node) in ("Abs", "Sqrt") else "a norm"
            return f"it has {kind} in it that is not squared"
    highest = max((degrees[node] for node in way.nodes), default=1.0)
    return f"it is of degree {highest:g} in the output" if highest > 2 else None


def _degree(node: Any, inputs: Sequence[float]) -> float | None:
    """The degree of a function's value in the outputs, from those of its inputs; None where it is no polynomial."""
    name = name_of(node)
    if name == "CopySlices":
        raised = degree_in_place(node)
        return None if raised is None else raised * max(inputs)

    if name in _LAYOUTS | _LINEAR or name in _ROOTS - {"Sqrt"}:
        return max(inputs)
    if name in _PRODUCTS:
        return sum(inputs)
    if name in _ADDED_PRODUCTS:
        return max(inputs[0], sum(inputs[1:]))
    if name in _LINEAR_IN_ONE:
        return None if any(inputs[1:]) else inputs[0]
    if name in _SQUARES:
        return 2 * max(inputs)
    if name == "Sqrt":
        return max(inputs) / 2
    if name == "Pow":
        exponent = _exponent(node) or 0.0
        return exponent * inputs[0] if exponent in (0.5, 1.0, 2.0) else None
    return None


def _exponent(node: Any) -> float | None:
    value = getattr(node, "_saved_exponent", None)
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None


def _is_root(node: Any) -> bool:
    return name_of(node) in _ROOTS or (name_of(node) == "Pow" and _exponent(node) == 0.5)


def _is_squared_at_once(node: Any, users: dict[Any, list[Any]], degrees: dict[Any, float]) -> bool:
    """Whether all that is done with a root of squares is to square it, perhaps after a factor or a new layout."""
    for user in users[node]:
        name = name_of(user)
        inputs = [child for child, _ in user.next_functions]
        with_itself = name == "Mul" and inputs[0] is inputs[-1]
        if with_itself or name in _NORMS or (name == "Pow" and _exponent(user) == 2):
            continue
        factor = name in ("Mul", "Div") and sum(child in degrees for child in inputs) == 1
        passes_on = factor or name in _LAYOUTS or name == "Neg"
        if not passes_on or not _is_squared_at_once(user, users, degrees):
            return False
    return bool(users[node])
