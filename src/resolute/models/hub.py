"""Weights by their address: files on the Hugging Face Hub, and models of OpenModelDB (openmodeldb.info).

``hf-hub:OWNER/REPOSITORY/FILE``, with ``@REVISION`` and ``#sha256=HEX`` behind it where a name must always mean one and
the same file; ``openmodeldb:NAME``, whose files are known there by their sha256, in the catalogue as it was at one
commit, every page of which is known here by its own (``openmodeldb.sha256``). What was fetched once is taken from the
cache; with HF_HUB_OFFLINE=1 nothing else is looked at. RESOLUTE_OPENMODELDB names a catalogue of one's own, which is
trusted as it is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from resolute.errors import CheckpointError, ConfigError, first_line, quoted
from resolute.files import write_atomically
from resolute.models.parts import beside, require_sha256
from resolute.offline import why_offline

HUBS = ("hf-hub:", "openmodeldb:")
HINT = "pip install 'resolute[zoo]'"

# Anything larger is no weights file of a restorer, and a server could send without end.
MOST_BYTES = 4 * 2**30
SECONDS = 5.0

# The table is what `sha256sum *.json` says in this folder of a clone at this commit.
_COMMIT = "782aac088bd83dd3fc438a42eb0c3868dc559110"
_CATALOGUE = f"https://raw.githubusercontent.com/OpenModelDB/open-model-database/{_COMMIT}/data/models"
_PINNED = Path(__file__).with_name("openmodeldb.sha256")
_TYPES = ("safetensors", "pth", "pt", "onnx")


def fetch(name: str) -> Path:
    """Return the file that a name with one of ``HUBS`` before it means, from the cache or the network.

    Those that belong to it (see ``models.parts``) are fetched beside it.

    Raises:
        CheckpointError: no such file, no network and not in the cache, or another sha256 than it should have.
        ConfigError: the name is no such address, or huggingface_hub is missing.
        OutputError: the cache cannot be written.
    """
    address, _, fragment = name.partition("#")
    wanted = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and wanted is None:
        raise ConfigError(f"behind # goes sha256= and 64 hexadecimal digits, not {quoted(fragment)}")
    sha256 = wanted[1].lower() if wanted is not None else ""
    hub, _, address = address.partition(":")
    if hub == "openmodeldb":
        return _from_catalogue(address, sha256)
    path, (file, _, revision) = _from_hub(address), address.partition("@")
    for other in beside(path):
        # Into the folder of the same revision.
        _from_hub(f"{file.rpartition('/')[0]}/{other}{f'@{revision}' if revision else ''}")
    require_sha256(path, sha256)
    return path


def _from_hub(address: str) -> Path:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)/([^@]+?)(?:@([\w./-]+))?", address)
    if match is None:
        raise ConfigError(f"a file on the hub is hf-hub:OWNER/REPOSITORY/FILE or …/FILE@REVISION, not {address!r}")
    repository, file, revision = match.groups()
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        constants: Any = importlib.import_module("huggingface_hub.constants")
        errors: Any = importlib.import_module("huggingface_hub.errors")
    except ModuleNotFoundError:
        raise ConfigError(f"files on the Hugging Face Hub need huggingface_hub: {HINT}") from None
    endpoint = os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)
    # It would try for half a minute to reach a hub that is not there.
    cached_only = bool(why_offline()) or not _reachable(endpoint)
    try:
        options = {"revision": revision, "endpoint": endpoint, "local_files_only": cached_only}
        path = Path(hub.hf_hub_download(repository, file, etag_timeout=SECONDS, **options))
    except errors.LocalEntryNotFoundError:
        why = why_offline() or f"{endpoint} cannot be reached"
        raise CheckpointError(
            f"{file} of {repository} is not in the cache, and {why}: run `hf download {repository} {file}` where there "
            "is a network, and copy its cache (HF_HOME) here"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(f"the hub has no repository {repository}, or it is private: `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{repository} has no revision {revision}; leave @{revision} out for the newest"
        ) from None
    except errors.EntryNotFoundError:
        raise CheckpointError(f"{repository} has no file {file}; see {endpoint}/{repository}/tree/main") from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(f"cannot fetch {file} of {repository}: {first_line(error)}") from None
    return path


def _from_catalogue(name: str, sha256: str) -> Path:
    if re.fullmatch(r"[\w+][\w.+-]*", name) is None:
        raise ConfigError(f"a model of OpenModelDB is openmodeldb:NAME, as 4x-UltraSharp, not {quoted(name)}")
    folder = _cache() / "openmodeldb" / name
    facts = _facts(name, folder / "model.json")
    resource = _resource(name, facts, sha256)
    digest, kind, urls = str(resource["sha256"]).lower(), str(resource["type"]), cast("list[Any]", resource["urls"])
    path = folder / digest[:12] / f"{name}.{kind}"
    if path.is_file() and _sha256(path) == digest:
        return path
    if why := why_offline():
        raise CheckpointError(f"{name} is not in the cache ({path}), and {why}")
    failures: list[str] = []
    for url in map(str, urls):
        try:
            write_atomically(path, lambda temporary, url=url: _download(url, temporary, digest))
        except CheckpointError as error:
            failures.append(str(error))
        else:
            return path
    raise CheckpointError(
        f"cannot fetch {name}: {'; '.join(failures) or 'no address of it is a plain download'}. "
        f"Download it by hand from https://openmodeldb.info/models/{name} and save it as {path}"
    )


def _facts(name: str, file: Path) -> Mapping[str, Any]:
    """Return what the catalogue says about a model; one's own as it says it now or, without a network, last said."""
    own = os.environ.get("RESOLUTE_OPENMODELDB", "")
    base = own or _CATALOGUE
    wanted = "" if own else _pinned(name)
    if not (file.is_file() and _sha256(file) == wanted) and not why_offline():
        try:
            with _opened(f"{base}/{urllib.parse.quote(name)}.json") as reply:
                content = reply.read(2**22)
            if wanted and hashlib.sha256(content).hexdigest() != wanted:
                raise CheckpointError(f"{base}/{name}.json is another page than it was; give the path of a file")
            write_atomically(file, lambda temporary: temporary.write_bytes(content))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise CheckpointError(f"OpenModelDB has no model {name!r}; see https://openmodeldb.info") from None
        except (OSError, ValueError):
            pass
    try:
        text = file.read_bytes()
        if wanted and hashlib.sha256(text).hexdigest() != wanted:
            raise FileNotFoundError
        found: object = json.loads(text)
    except FileNotFoundError:
        why = why_offline() or f"{base} cannot be reached"
        raise CheckpointError(
            f"{name} of OpenModelDB is not in the cache, and {why}: download its file from "
            f"https://openmodeldb.info/models/{name} where there is a network, and give its path"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"what OpenModelDB says about {name} cannot be read: {first_line(error)}") from None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _pinned(name: str) -> str:
    """Return the sha256 that the catalogue's page about a model has."""
    found = _pages(_PINNED).get(f"{name}.json")
    if found is None:
        raise CheckpointError(
            f"OpenModelDB had no model {name!r} when its catalogue was pinned; see https://openmodeldb.info, and give "
            "the path of a file from there"
        )
    return found


@functools.cache
def _pages(table: Path) -> Mapping[str, str]:
    lines = table.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _resource(name: str, facts: Mapping[str, Any], sha256: str) -> Mapping[str, Any]:
    """Return the file to take: the one of the sha256 asked for, or the first type in ``_TYPES``."""
    resources = facts.get("resources")
    usable: list[Mapping[str, Any]] = [
        one
        for one in (cast("list[Any]", resources) if isinstance(resources, list) else [])
        if isinstance(one, dict)
        and one.get("type") in _TYPES
        and re.fullmatch("[0-9a-fA-F]{64}", str(one.get("sha256")))
        and isinstance(one.get("urls"), list)
    ]
    chosen = [one for one in usable if not sha256 or str(one["sha256"]).lower() == sha256]
    if not chosen:
        what = "no file of that sha256" if sha256 and usable else "no file with a sha256 that Resolute can read"
        raise CheckpointError(f"OpenModelDB has {what} for {name}; see https://openmodeldb.info/models/{name}")
    return min(chosen, key=lambda one: _TYPES.index(one["type"]))


def _download(url: str, path: Path, sha256: str) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(url) as reply, path.open("wb") as file:
            while block := reply.read(2**20):
                size += len(block)
                if size > MOST_BYTES:
                    raise CheckpointError(f"{url} sends more than {MOST_BYTES >> 30} GiB")
                digest.update(block)
                file.write(block)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise CheckpointError(f"{url}: {first_line(error)}") from None
    if digest.hexdigest() != sha256:
        raise CheckpointError(f"{url} sends a file of another sha256, perhaps a page to click through")


@contextlib.contextmanager
def _opened(url: str) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise CheckpointError(f"{url[:120]} is no address on the web")
    request = urllib.request.Request(url, headers={"User-Agent": "resolute"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            yield cast("BinaryIO", reply)
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _reachable(endpoint: str) -> bool:
    try:
        with _opened(endpoint):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resolute"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
