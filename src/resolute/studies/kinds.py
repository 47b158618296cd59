"""The kinds of studies, and reading one by the ``kind`` that its TOML file names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from resolute.errors import ConfigError
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.study import Study, checked_attacks, find_study
from resolute.toml import check_table, located, read_table

AnyStudy = Study | CertifiedIqa | MetricAsLoss

DEFAULT = "super-resolution"
KINDS: dict[str, type[Study] | type[CertifiedIqa] | type[MetricAsLoss]] = {
    DEFAULT: Study,
    "certified-iqa": CertifiedIqa,
    "metric-as-loss": MetricAsLoss,
}


def read_study(source: str | Path) -> AnyStudy:
    """Read a study of any kind from a TOML file, or a built-in one by name.

    Raises:
        ConfigError: no such study or kind, no valid TOML, or a key that does not exist or is out of range.

    Example:
        >>> read_study("certified-iqa").epsilon, read_study("demo").name
        (0.05, 'demo')
    """
    path = find_study(source)
    content = read_table(path)
    kind = content.pop("kind", DEFAULT)
    if kind not in KINDS:
        raise located(path, ("kind",), f"one of {', '.join(KINDS)}, not {kind!r}")
    study = check_table(path, content, KINDS[str(kind)])
    return checked_attacks(path, study) if isinstance(study, Study) else study


def with_options(study: AnyStudy, options: Mapping[str, tuple[str, object]]) -> AnyStudy:
    """Return the study with what a person typed in place of its settings; what is empty or None leaves them.

    Args:
        study: as read.
        options: for each flag, the name of the setting and its value.

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


def kind_of(folder: Path) -> str:
    """Return the kind of the study whose results are in a folder; the default one where it does not say."""
    try:
        facts: object = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return DEFAULT
    return str(facts.get("kind", DEFAULT)) if isinstance(facts, dict) else DEFAULT
