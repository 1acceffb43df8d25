"""Reports: documents of sections, and renderers that only format."""

from closedform.report.base import Report
from closedform.report.document import Document, Section

__all__ = ["Document", "Report", "Section"]
