"""One's own code by its file, ``mine.py:NAME``, wherever an attack, an objective, a metric or a data set is named.

A file is run once, as a module of this package whose name tells where it lies and what it held. So other processes can
import it by that name, which is what pickles of its classes hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import cast, final

from resolute.errors import ConfigError, ResoluteError, class_and_line
from resolute.importing import IMPORTED, LOCK, importing_from, place_of, sources_sha256

_FORM = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")
# As it stands in a study: NAME= of a data set in front, options of a model behind.
_IN_TEXT = re.compile(r"(?P<set>[\w.-]+=)?(?P<path>[^#=]+\.py)(?P<rest>:[A-Za-z_]\w*(?:[#+].*)?)", re.DOTALL)
_SHOWN = 12

# This module stands for a package, whose modules are the files.
__path__: list[str] = []

_only_shown: ContextVar[bool] = ContextVar("only_shown", default=False)

# By the names of modules: what their files held, and the sha256 of all that they are made of.
_contents: dict[str, bytes] = {}
_sha256: dict[str, str] = {}


@final
@dataclasses.dataclass(frozen=True)
class OwnCode:
    """A name in a Python file.

    Attributes:
        path: the file, absolute.
        name: what is meant in it.
    """

    path: Path
    name: str

    @property
    def title(self) -> str:
        """What a person calls it, without the folder."""
        return f"{self.path.name}:{self.name}"

    def load(self) -> object:
        """Run the file if this process has not, and return what the name stands for.

        Raises:
            ConfigError: the file is missing or fails, or there is no such name in it; the text has file and line.
        """
        if _only_shown.get() and not was_run(self):
            raise ConfigError(f"{self.title} is not run to show results")
        module = _module(self.path)
        found: object = getattr(module, self.name, None)
        if found is None:
            own = [name for name, value in vars(module).items() if not name.startswith("_") and _of(value, module)]
            near = difflib.get_close_matches(self.name, own, n=_SHOWN, cutoff=0.0)
            raise ConfigError(f"{self.path.name} defines no {self.name}; it defines {', '.join(near) or 'nothing'}")
        return found

    @property
    def sha256(self) -> str:
        """Of the file, and of the files beside it that it imports."""
        return _sha256[_module(self.path).__name__]

    def error(self, what: str) -> ConfigError:
        """Return the error that says what is wrong with what the name stands for."""
        return ConfigError(f"{self.title} {what}; change {self.path}")

    def failed(self, what: str, error: BaseException) -> ConfigError:
        """Return the error that says that its code raised another."""
        place = place_of(error, self.path.parent)
        return ConfigError(f"{self.title} {what}: {class_and_line(error)}{f' ({place})' if place else ''}")


def own_code(text: str) -> OwnCode | None:
    """Return what ``FILE.py:NAME`` means; None for a text of another form.

    Example:
        >>> own_code("attacks/mine.py:ColourCast").title, own_code("pgd")
        ('mine.py:ColourCast', None)
    """
    found = _FORM.fullmatch(text)
    return OwnCode(Path(found["path"]).expanduser().resolve(), found["name"]) if found else None


def short_name(text: str) -> str:
    """Return a name for tables: of ``FILE.py:NAME`` without the folder; another one as it is.

    Example:
        >>> short_name("attacks/mine.py:ColourCast"), short_name("pgd")
        ('mine.py:ColourCast', 'pgd')
    """
    code = own_code(text)
    return code.title if code else text


def was_run(code: OwnCode) -> bool:
    """Return whether this process has run the file, in whatever state it was."""
    beginning = f"{__name__}.{_written(code.path)}__"
    return any(name.startswith(beginning) for name in _sha256)


@contextlib.contextmanager
def only_shown() -> Generator[None]:
    """Run no code that was not run already: a folder of results may come from anyone."""
    token = _only_shown.set(True)
    try:
        yield
    finally:
        _only_shown.reset(token)


def holds_code(value: object) -> bool:
    """Return whether a text in a table or list names code in a file."""
    if isinstance(value, str):
        return any(own_code(part.partition("=")[2] or part) or own_code(part) for part in value.split(","))
    if isinstance(value, Mapping):
        return any(map(holds_code, cast("Mapping[object, object]", value).values()))
    return isinstance(value, list | tuple) and any(map(holds_code, cast("Sequence[object]", value)))


def anchored(content: object, folder: Path) -> object:
    """Return what a TOML file says with the Python files in it looked for in its folder.

    One that is only there from the working directory is left as it is.

    Example:
        >>> anchored({"kind": "mine.py:ColourCast", "steps": 3}, Path("/studies"))
        {'kind': '/studies/mine.py:ColourCast', 'steps': 3}
    """
    if isinstance(content, dict):
        return {key: anchored(value, folder) for key, value in cast("dict[str, object]", content).items()}
    if isinstance(content, list):
        return [anchored(value, folder) for value in cast("list[object]", content)]
    found = _IN_TEXT.fullmatch(content) if isinstance(content, str) else None
    if found is None:
        return content
    there = folder / Path(found["path"]).expanduser()
    if not there.is_file() and Path(found["path"]).expanduser().is_file():
        return content
    return f"{found['set'] or ''}{there}{found['rest']}"


def described(configuration: object) -> str:
    """Return the ``repr`` of what may hold objects of one's own classes, with the sha256 of their files behind it."""
    found = sorted({_sha256[name] for name in _modules_in(configuration, 0)})
    return f"{configuration!r}{''.join(f' of code {sha256[:16]}' for sha256 in found)}"


@contextlib.contextmanager
def told_in_one_line() -> Generator[None]:
    """Turn an error that comes out of code of one's own into a ``ConfigError`` with file and line; leave others."""
    try:
        yield
    except ResoluteError:
        raise
    except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
        files = [Path(str(module.__file__)) for name in _sha256 if (module := sys.modules.get(name)) is not None]
        place = next((place for file in [*files, *IMPORTED] if (place := place_of(error, file))), "")
        if not place:
            raise
        raise ConfigError(f"{place}: {class_and_line(error)}") from error


def sources() -> dict[str, bytes]:
    """Return what another process needs to import the files that this one has run: their content by module."""
    return {name: _contents[name] for name in _sha256}


def adopt(contents: Mapping[str, bytes]) -> None:
    """Take the files of another process as they were there, whatever lies here."""
    _contents.update(contents)


@final
class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports files by the names of their modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        file = _file(fullname)
        if fullname not in _contents:
            content = file.read_bytes() if file.is_file() else b""
            if _name(file, content) != fullname:
                raise ImportError(f"{file} is not there any more, or has changed", name=fullname)
            _contents[fullname] = content
        return importlib.util.spec_from_loader(fullname, self, origin=str(file))

    def exec_module(self, module: ModuleType) -> None:
        name, file = module.__name__, _file(module.__name__)
        module.__file__ = str(file)
        with LOCK, importing_from([file.parent]) as files:
            exec(compile(_contents[name], str(file), "exec", dont_inherit=True), module.__dict__)
        # Of what was run, which may lie there no more.
        others = sources_sha256(one for one in files if one != file)
        _sha256[name] = hashlib.sha256(_contents[name] + others.encode()).hexdigest()


sys.meta_path.append(_Finder())


def _module(path: Path) -> ModuleType:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no file {path} to run: {error.strerror}; FILE.py:NAME names a file and what is in it"
        ) from None
    name = _name(path, content)
    try:
        return importlib.import_module(name)
    except ResoluteError:
        raise
    except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
        place = place_of(error, path.parent)
        what = f"SyntaxError: {error.msg}" if isinstance(error, SyntaxError) else class_and_line(error)
        raise ConfigError(f"{path.name} cannot be run: {what}{f' ({place})' if place else ''}") from error


def _name(path: Path, content: bytes) -> str:
    return f"{__name__}.{_written(path)}__{hashlib.sha256(content).hexdigest()[:16]}"


def _written(path: Path) -> str:
    """Return a path as a part of the name of a module."""
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"_{b:02x}" for b in str(path).encode())


def _file(name: str) -> Path:
    written = name.removeprefix(f"{__name__}.").rpartition("__")[0].encode()
    return Path(re.sub(rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), written).decode())


def _of(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _modules_in(value: object, depth: int) -> set[str]:
    """Return the modules of one's own that the classes and functions in a value come from."""
    kind = value if isinstance(value, type) else type(value)
    named = {str(getattr(one, "__module__", "")) for one in (*kind.__mro__, value)}
    found = {name for name in named if name in _sha256}
    if depth > 8:
        return found
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts: Sequence[object] = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        parts = list(cast("Mapping[object, object]", value).values())
    else:
        parts = list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else []
    return found.union(*(_modules_in(part, depth + 1) for part in parts))
