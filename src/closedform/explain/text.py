"""A diagnosis on a screen: the verdict first, the numbers, what else was found, what to do."""

from __future__ import annotations

from closedform.explain.records import DiagnosisRecord
from closedform.report.document import Block, Code, Document, Notes, Paragraph, Section
from closedform.report.text import TONES

__all__ = ["diagnosis_summary"]

#: Findings after the first are one line each; so many fit a screen beside the rest.
_LINES = 6


def diagnosis_summary(record: DiagnosisRecord) -> Document:
    """Lay out what fits a screen."""
    verdict, findings = record.verdict, record.findings
    lead = Section(verdict.title, (Paragraph(verdict.sentence),), tone=verdict.severity.value, name=verdict.name)
    numbers = (record.problem.text, record.text.spectrum, record.text.limits)
    notes: tuple[Block, ...] = tuple(Paragraph(f"note: {note}") for note in record.notes)

    rest = [finding for finding in findings if finding.name != verdict.name]
    if rest:
        lines = [f"{TONES[finding.severity.value]}: {finding.title}" for finding in rest[:_LINES]]
        if len(rest) > _LINES:
            lines.append(f"and {len(rest) - _LINES} more in .findings")
        found = Section("Also found", (Notes(tuple(lines)), *notes))
        sections = [Section("", tuple(map(Paragraph, numbers))), found]
    else:
        sections = [Section("", (*map(Paragraph, numbers), *notes))]
    if findings and findings[0].name == verdict.name and findings[0].remedy:
        sections.append(Section("What to do", (Code(findings[0].remedy.rstrip(), "the remedy"),)))
    return Document(title=verdict.title, about=record.problem.text, lead=(lead,), sections=tuple(sections))
