"""Reports: data, then sections, then a renderer that only formats."""

from closedform.report.comparison import Comparison, CurvePoint, MethodResult

__all__ = ["Comparison", "CurvePoint", "MethodResult"]
