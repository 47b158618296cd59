"""An entry of a leaderboard: one model under one suite of attacks, with all that is needed to check it again."""

from __future__ import annotations

import codecs
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from resolute.errors import ConfigError
from resolute.files import read_regular
from resolute.leaderboard.empirical import Empirical, Level, Part, Short, contradiction

# An entry of a hundred attacks on ten data sets takes a tenth of it; anyone may submit one.
MAX_BYTES = 2_000_000

Knowledge = Literal["white-box", "adaptive", "black-box", "transfer"]
Sha256 = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
Line = Annotated[str, pydantic.Field(max_length=2000)]


class AttackFacts(Part):
    """One attack of the suite.

    Attributes:
        configuration: ``repr`` of the attack, its budget left open.
        norm: of the budget.
        knowledge: what the attacker knows: the model's gradients (white-box), also those through a defence around it
            (adaptive), its outputs alone (black-box), or another model (transfer).
    """

    label: Short
    configuration: Line
    seed: int
    norm: Literal["linf", "l2"]
    knowledge: Knowledge


class Threat(Part):
    """What the attacker may do.

    Attributes:
        norms: of the budgets, in levels of 255.
        budgets: in levels of 255.
        knowledge: of the strongest first.
    """

    norms: list[Literal["linf", "l2"]] = pydantic.Field(min_length=1)
    budgets: list[Level] = pydantic.Field(min_length=1)
    knowledge: list[Knowledge] = pydantic.Field(min_length=1)


class Suite(Part):
    """The attacks, and a hash that is equal where figures can be compared.

    Attributes:
        version: of the protocol and of all attack configurations with their seeds; not of the budgets.
        protocol: of the records; it is raised when equal configurations could give other figures.
    """

    version: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{16}$")]
    protocol: int = pydantic.Field(ge=1)
    attacks: list[AttackFacts] = pydantic.Field(min_length=1)

    @staticmethod
    def of(protocol: int, attacks: list[AttackFacts]) -> Suite:
        """Return the suite with its hash."""
        said = [[attack.label, " ".join(attack.configuration.split()), attack.seed] for attack in attacks]
        version = hashlib.sha256(json.dumps([protocol, said]).encode()).hexdigest()[:16]
        return Suite.model_construct(version=version, protocol=protocol, attacks=attacks)

    @pydantic.model_validator(mode="after")
    def _computed(self) -> Suite:
        if self.version != Suite.of(self.protocol, self.attacks).version:
            raise ValueError("version is not the hash of these attacks")
        return self


class ModelFacts(Part):
    """What was attacked; ``sha256`` is empty for interpolation, which has no weights."""

    name: Short
    sha256: Annotated[str, pydantic.Field(pattern="^([0-9a-f]{64})?$")]
    scale: int = pydantic.Field(default=0, ge=0)


class DataSet(Part):
    """The images: ``sha256`` is of the sorted hashes of their pixels, so that it is equal for equal images."""

    name: Annotated[str, pydantic.Field(max_length=200)]
    images: int = pydantic.Field(ge=1)
    sha256: Sha256


class FlagRaised(Part):
    """A raised flag; docs/flags.md says what each means."""

    name: Short
    figure: Line
    words: Line
    basis: Line


class Made(Part):
    """How the records were made."""

    command: Line
    date: Short
    versions: dict[str, str]
    hardware: Line


class Entry(Part):
    """One model on one data set under one suite. Certified figures have no place here: they are of another kind.

    Attributes:
        version: of this format.
        submitter: who stands for it.
        link: to a paper or to the weights.
        checked: whether ``resolute check`` was run on the model.
        records: sha256 of the keys and figures of all records behind this entry.
        cells: how many records those are.
    """

    version: Literal[1] = 1
    kind: Literal["super-resolution"] = "super-resolution"
    model: ModelFacts
    submitter: Annotated[str, pydantic.Field(max_length=200)] = ""
    link: Annotated[str, pydantic.Field(max_length=500, pattern=r"^(https://[^\s\"'<>]+)?$")] = ""
    threat: Threat
    suite: Suite
    data: DataSet
    empirical: list[Empirical] = pydantic.Field(min_length=1)
    flags: list[FlagRaised]
    checked: bool
    records: Sha256
    cells: int = pydantic.Field(ge=1)
    made: Made | None

    @property
    def group(self) -> tuple[str, str]:
        """What must be equal for entries to be ranked together: the suite and the images."""
        return self.suite.version, self.data.sha256

    @property
    def identity(self) -> str:
        """Hash of all that is said but how the records were made: equal for two entries that say the same."""
        said = self.model_dump_json(exclude={"made"})
        return hashlib.sha256(said.encode()).hexdigest()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Entry:
        settings = [(one.attack, one.level) for one in self.empirical]
        if len(set(settings)) < len(settings):
            raise ValueError("an attack has two figures at one budget")
        if {level for _, level in settings} != set(self.threat.budgets):
            raise ValueError("the figures are of other budgets than the threat model names")
        if any(one.images > self.data.images for one in self.empirical):
            raise ValueError(f"figures over more than the {self.data.images} images of the data set")
        if fault := contradiction(self.empirical, {one.label for one in self.suite.attacks}, self.cells):
            raise ValueError(fault)
        return self

    def to_json(self) -> str:
        """Return the entry as its file holds it."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_entry(path: Path) -> Entry:
    """Read and validate an entry, which anyone may have written.

    Raises:
        ConfigError: it cannot be read, is too large, or breaks the schema.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path.name} is larger than {MAX_BYTES // 1_000_000} MB, so it is no entry")
        # Editors on Windows put a byte order mark first.
        return Entry.model_validate_json(read_regular(path).removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path.name} is no valid entry: {first_fault(error)}") from None


def first_fault(error: pydantic.ValidationError) -> str:
    """Return where the first fault of an entry is, and what it is."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of an entry, as docs/leaderboard.schema.json publishes it."""
    return Entry.model_json_schema()
