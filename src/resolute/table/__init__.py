"""Tables: one class for everything that is shown in rows, and what it is made of."""

from resolute.table.entries import Cell, Column, Row, Tone, Value, row
from resolute.table.table import Table

__all__ = ["Cell", "Column", "Row", "Table", "Tone", "Value", "row"]
