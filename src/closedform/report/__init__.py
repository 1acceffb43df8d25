"""Reports: documents of sections, and renderers that only format."""

from closedform.report.base import ChartReport, Report
from closedform.report.document import Document, Section

__all__ = ["ChartReport", "Document", "Report", "Section"]
