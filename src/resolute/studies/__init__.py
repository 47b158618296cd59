"""Studies: questions with many cells, and what their answers come to."""

from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study, register
from resolute.studies.record import Record
from resolute.studies.study import Study
from resolute.studies.summary import compare, summarize, worst_case
from resolute.studies.verdicts import verdict

__all__ = [
    "AttackRecord",
    "Grid",
    "Record",
    "Study",
    "compare",
    "read_study",
    "register",
    "summarize",
    "verdict",
    "worst_case",
]
