"""Pages and Markdown: verdict, pictures, tables and curves of one or more studies, in one file."""

from resolute.report.hardening import write_hardening
from resolute.report.writing import write_report

__all__ = ["write_hardening", "write_report"]
