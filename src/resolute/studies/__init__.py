"""Studies: a grid of models, attacks, budgets and images, and the records it produces."""

from resolute.studies.store import Record, Store
from resolute.studies.study import Study
from resolute.studies.summary import compare, summarize, verdict, worst_case

__all__ = ["Record", "Store", "Study", "compare", "summarize", "verdict", "worst_case"]
