"""The options of commands that hold figures against bounds, and what they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from resolute.errors import ConfigError, GateError
from resolute.files import check_writable, write_text
from resolute.studies.gate import Gate, check_gates, gates_table, parse_gate, pass_gates, write_junit
from resolute.studies.record import Record
from resolute.studies.study import Study
from resolute.terminal import console

FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        help="Exit with 13 where a figure is worse, as QUANTITY\\[@SETTING]=BOUND, such as attacked-psnr@4/255=24.5; "
        "of attacks that are left open the worst on each image counts. May be repeated.",
        rich_help_panel="Gates",
    ),
]
JUnit = Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML.", rich_help_panel="Gates")]
Summary = Annotated[
    Path | None,
    typer.Option(help="Append gates, verdict and tables as Markdown, for a pull request.", rich_help_panel="Gates"),
]


@dataclasses.dataclass(frozen=True)
class Gates:
    """What was typed about gates: their texts, and files to write."""

    bounds: Sequence[str] = ()
    junit: Path | None = None
    summary: Path | None = None

    def parsed(self, study: Study) -> list[Gate]:
        """Return the gates.

        Raises:
            ConfigError: one is none, or on what the study does not measure; or a file is wanted without any, or one
                for both.
            OutputError: a file cannot be written.
        """
        gates = [parse_gate(text) for text in self.bounds]
        if self.junit is not None and not gates:
            raise ConfigError("--junit writes what came of gates: give --fail-under too")
        check_gates(study, gates)
        files = {"--junit": self.junit, "--summary": self.summary}
        for option, path in files.items():
            if path is not None:
                check_writable(path, option)
        if self.junit is not None and self.summary is not None and self.junit.resolve() == self.summary.resolve():
            raise ConfigError(f"--junit and --summary are both {self.junit}: give each a file of its own")
        return gates

    def passed(self, study: Study, records: Sequence[Record], doubts: Sequence[str] = ()) -> None:
        """Tell and write what came of the gates.

        Args:
            study: what was asked.
            records: the answers.
            doubts: why models seem not to upscale; a reader of the summary sees no warning.

        Raises:
            GateError: one is not passed.
        """
        passages = pass_gates(study, records, self.parsed(study))
        if self.junit is not None:
            write_junit(passages, self.junit, study.name)
        table = gates_table(passages) if passages else None
        if table is not None:
            console.print(table.terminal())
        if self.summary is not None:
            results = study.results(records)
            gates = [table.markdown()] if table is not None else []
            tables = [one.markdown() for one in results.tables]
            # Servers give every step of a job the same file.
            before = self.summary.read_text("utf-8", "replace") if self.summary.is_file() else ""
            told = [*gates, *(f"{doubt}." for doubt in doubts), *results.sentences, *tables]
            write_text(self.summary, before + "\n\n".join(told) + "\n")
        failed = [one.words() for one in passages if not one.passed]
        if failed:
            raise GateError("; ".join(failed))


# Where no bounds were typed.
UNGATED = Gates()
