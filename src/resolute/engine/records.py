"""What a run returns: the records of a study, which show themselves and become tables of other libraries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from resolute.engine.query import load_records
from resolute.errors import ConfigError
from resolute.notebook import paragraph
from resolute.studies.record import Record
from resolute.studies.results import Results
from resolute.studies.study import Study

if TYPE_CHECKING:
    import pandas
    from duckdb import DuckDBPyRelation


@final
class Records(list[Record]):
    """The records of a study in the order of its plan: a list, in a notebook the study's verdict and tables.

    Attributes:
        study: that they answer.

    Example:
        >>> import tempfile
        >>> from resolute import Grid, run
        >>> from resolute.attacks.registry import AttackTable
        >>> study = Grid(name="tiny", models=("bicubic",), attacks=(AttackTable("fgsm"),), epsilons=(4,), crop=32)
        >>> records = run(study, tempfile.mkdtemp())
        >>> records.relation().aggregate("model, count(*)").fetchall()
        [('bicubic', 5)]
    """

    def __init__(self, study: Study, records: Iterable[Record]) -> None:
        super().__init__(records)
        self.study = study

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self.study.kind} {self.study.name!r}>"

    def results(self) -> Results:
        """Return what the records come to: sentences, tables and charts."""
        return self.study.results(self)

    def relation(self, view: str = "") -> DuckDBPyRelation:
        """Return the records of one kind as a DuckDB relation, whose columns ``docs/records.md`` explains.

        Args:
            view: such as ``attacks`` or ``clever``; may be left out where there are records of one kind only.

        Raises:
            ConfigError: there are records of several kinds and none is named, or none of that kind.
        """
        import duckdb  # a fifth of a second, which others need not wait for

        own = sorted({record.view for record in self})
        if not view and len(own) == 1:
            view = own[0]
        if view not in own:
            raise ConfigError(f"name the records that you want: {', '.join(own) or 'there are none'}")
        connection = duckdb.connect()
        load_records(connection, ((record, "") for record in self))
        return connection.table(view)

    def frame(self, view: str = "") -> pandas.DataFrame:
        """Return the records of one kind as a pandas table; see ``relation``.

        Raises:
            ConfigError: as in ``relation``, or pandas is not installed.
        """
        relation = self.relation(view)
        try:
            return relation.df()
        except ImportError:
            raise ConfigError("a frame needs pandas: pip install pandas, or use relation()") from None

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction]
        found = self.results()
        return "".join((*map(paragraph, found.sentences), *(table.html() for table in found.brief or found.tables)))
