"""Where results go: a local folder, or one behind any address that fsspec knows, such as ``s3://bucket/folder``.

Object stores cannot append. A remote study works in a local folder that begins as a copy of the remote one, and every
unit that is done is sent as objects of its own, so that a killed run loses no more than the units in flight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, final

from resolute.engine.bench import Found
from resolute.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import fsspec

# Written by this run alone, or sent part by part.
_KEPT_HERE = (".lock", ".jsonl")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A folder for results.

    Attributes:
        folder: to read and write in.
        url: where its content is sent; empty for a local folder, which is its own place.
        files: the file system behind the url.
    """

    folder: Path
    url: str = ""
    files: fsspec.AbstractFileSystem | None = None

    def push(self, found: Found) -> None:
        """Send what one unit has given, images first.

        Raises:
            OutputError: it cannot be sent.
        """
        if self.files is None:
            return
        for file in (file for record in found.records for file in record.files):
            self._send(self.folder / file)
        records = [record.as_line() for record in found.records]
        for stem, lines in (
            ("records", records),
            ("failed", [dataclasses.asdict(failure) for failure in found.failures]),
        ):
            if lines:
                text = "".join(json.dumps(line) + "\n" for line in lines)
                with self._said() as files:
                    files.pipe_file(self._remote(f"{stem}-{lines[0]['key']}.jsonl"), text.encode())

    def push_all(self) -> None:
        """Send what belongs to the study as a whole: the plan, the report.

        Raises:
            OutputError: it cannot be sent.
        """
        if self.files is None:
            return
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.suffix not in _KEPT_HERE:
                self._send(path)

    def name_of(self, path: Path) -> str:
        """Return what a person calls a file of the folder."""
        return f"{self.url.rstrip('/')}/{path.relative_to(self.folder).as_posix()}" if self.url else str(path)

    def pull(self, ending: str = "") -> None:
        """Copy what is there into the local folder, or only the files with this ending.

        Raises:
            OutputError: it cannot be read.
        """
        root = self._remote("")
        with self._said() as files:
            for remote in (path for path in files.find(root) if path.endswith(ending)):
                name = posixpath.relpath(remote, root)
                path = (self.folder / name).resolve()
                if not path.is_relative_to(self.folder.resolve()):
                    raise OutputError(f"{self.url} holds a file of the name {name!r}, which leads out of it")
                path.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(remote, str(path))

    def _send(self, path: Path) -> None:
        with self._said() as files:
            remote = self._remote(path.relative_to(self.folder).as_posix())
            files.makedirs(posixpath.dirname(remote), exist_ok=True)
            files.put_file(str(path), remote)

    def _remote(self, name: str) -> str:
        assert self.files is not None
        root = str(self.files._strip_protocol(self.url)).rstrip("/")  # pyright: ignore[reportPrivateUsage], it has no public name
        return f"{root}/{name}" if name else root

    @contextlib.contextmanager
    def _said(self) -> Generator[fsspec.AbstractFileSystem]:
        assert self.files is not None
        try:
            yield self.files
        except OSError as error:
            raise OutputError(
                f"cannot reach {self.url}: {error.strerror or error}; what was sent so far is kept, "
                "run the same command again"
            ) from None


@contextlib.contextmanager
def at_place(where: str, ending: str = "") -> Generator[Place]:
    """Yield the place of a path or an address; a remote one lives in a temporary folder meanwhile.

    Args:
        where: a path or an address.
        ending: of the files that are needed of a remote one; empty for all.

    Raises:
        ConfigError: no such kind of address, or what reaches it is not installed.
        OutputError: it cannot be read.

    Example:
        >>> with at_place("memory://demo") as place:
        ...     _ = (place.folder / "study.json").write_text("{}")
        ...     place.push_all()
        >>> with at_place("memory://demo") as place:
        ...     (place.folder / "study.json").read_text()
        '{}'
    """
    if "://" not in where:
        yield Place(Path(where))
        return
    import fsspec

    try:
        files, _ = fsspec.core.url_to_fs(where)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"--out {where}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="resolute-") as folder:
        place = Place(Path(folder), where, files)
        place.pull(ending)
        yield place
