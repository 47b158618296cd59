"""Tables: one class for everything that is shown in rows, and what it is made of."""

from resolute.table.entries import Column, Row, TableCell, Tone, Value, row
from resolute.table.table import Table

__all__ = ["Column", "Row", "Table", "TableCell", "Tone", "Value", "row"]
