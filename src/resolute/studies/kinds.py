"""The kinds of studies and of their records, and reading a study by the ``kind`` that its TOML file names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypeVar, cast

from resolute.errors import ConfigError
from resolute.of_file import anchored
from resolute.plugins import Plugin, find_plugin
from resolute.studies.audit import Audit
from resolute.studies.certification import Certification
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.check import Check
from resolute.studies.choice import Choice
from resolute.studies.faithful import Faithful
from resolute.studies.grid import Grid, checked_attacks
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.record import Record
from resolute.studies.restoration import Restoration
from resolute.studies.study import Study
from resolute.studies.survival import Survival
from resolute.studies.twin import Twin
from resolute.toml import check_table, located, read_table

KINDS: dict[str, type[Study]] = {}
RECORDS: dict[str, type[Record]] = {}

# The folder of the built-in studies.
STUDIES = Path(str(resources.files("resolute") / "studies"))

# The built-in study that every model of the leaderboard of published networks went through.
SUITE = "sr-linf-1"

Kind = TypeVar("Kind", bound=type[Study])


def register(kind: Kind) -> Kind:
    """Make a kind of study and its records known, so that files of both are read; a decorator of the class.

    Raises:
        ConfigError: a name is taken.
    """
    if KINDS.setdefault(kind.kind, kind) is not kind:
        raise ConfigError(f"two kinds of studies are called {kind.kind!r}; give one another name")
    for record in kind.records:
        if RECORDS.setdefault(record.view, record) is not record:
            raise ConfigError(f"two kinds of records are called {record.view!r}; give one another name")
    return kind


for _kind in (
    Grid, Check, Certification, CertifiedIqa, MetricAsLoss, Audit, Restoration, Survival, Twin, Faithful, Choice
):  # fmt: skip
    register(_kind)


def read_study(source: str | Path) -> Study:
    """Read a study of any kind from a TOML file, or a built-in one by name.

    Raises:
        ConfigError: no such study or kind, no valid TOML, or a key that does not exist or is out of range.

    Example:
        >>> read_study("demo").name
        'demo'
    """
    path = find_study(source)
    content = cast("dict[str, object]", anchored(read_table(path), path.resolve().parent))
    kind = content.pop("kind", Grid.kind)
    found = find_kind(kind)
    if found is None:
        raise located(path, ("kind",), f"one of {', '.join(KINDS)}, not {kind!r}")
    study = check_table(path, content, found)
    return checked_attacks(path, study) if isinstance(study, Grid) else study


def standard_suite() -> Grid:
    """Return the study that ``resolute benchmark`` runs.

    Example:
        >>> standard_suite().crop
        128
    """
    suite = read_study(SUITE)
    assert isinstance(suite, Grid)
    return suite


def find_kind(name: object) -> type[Study] | None:
    """Return the kind of study of a name, imported and registered where a package adds it; None where there is none.

    Raises:
        ConfigError: the package that adds it is broken.
    """
    plugin = find_plugin("studies", name) if isinstance(name, str) and name not in KINDS else None
    if isinstance(plugin, Plugin):
        register(_study_class(plugin))
    return KINDS.get(name) if isinstance(name, str) else None


def _study_class(plugin: Plugin) -> type[Study]:
    found = plugin.load()
    if not (isinstance(found, type) and issubclass(found, Study)):
        raise plugin.error("is no class of studies")
    return found


def find_study(source: str | Path) -> Path:
    """Return the TOML file of a study of any kind, given by path or by the name of a built-in one.

    Raises:
        ConfigError: there is none.

    Example:
        >>> find_study("demo").name
        'demo.toml'
    """
    built_in = STUDIES / f"{source}.toml"
    path = built_in if built_in.is_file() else Path(source)
    if not path.is_file():
        names = ", ".join(file.stem for file in sorted(STUDIES.glob("*.toml")))
        raise ConfigError(f"no study {str(source)!r}; give a TOML file or one of {names}")
    return path


def with_options(study: Study, options: Mapping[str, tuple[str, object]]) -> Study:
    """Return the study with what a person typed in place of its settings; what is empty or None leaves them.

    The ``options`` hold for each flag the name of the setting and its value.

    Raises:
        ConfigError: the study has no such setting, or takes one value where several were given.
    """
    known = {field.name for field in dataclasses.fields(study)}
    changes: dict[str, object] = {}
    for flag, (name, value) in options.items():
        if not value:
            continue
        if name not in known:
            raise ConfigError(f"the study {study.name} has nothing for {flag} to set; leave out {flag}")
        if isinstance(value, tuple) and isinstance(getattr(study, name), str):
            only, *more = cast("tuple[object, ...]", value)
            if more:
                raise ConfigError(f"{flag} takes one folder for the study {study.name}, not {1 + len(more)}")
            changes[name] = only
        else:
            changes[name] = value
    return dataclasses.replace(study, **changes)
