"""One self-contained HTML page, or Markdown tables, from the records of one or more studies."""

from resolute.report.hardening import write_hardening
from resolute.report.markdown import write_markdown
from resolute.report.page import write_report

__all__ = ["write_hardening", "write_markdown", "write_report"]
