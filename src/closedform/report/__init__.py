"""Reports: data, then sections, then a renderer that only formats."""

from closedform.report.comparison import Comparison, CurvePoint, MethodResult
from closedform.report.comparison_page import comparison_html
from closedform.report.diagnosis_page import diagnosis_fragment, diagnosis_html

__all__ = ["Comparison", "CurvePoint", "MethodResult", "comparison_html", "diagnosis_fragment", "diagnosis_html"]
