"""Links from the pages to lines of the package: found by name when the site is built, so that none goes stale."""

from __future__ import annotations

import html
import importlib
import inspect
import re
import types
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "resolute"
PAGE = """<!doctype html>
<html lang="en" style="scroll-behavior: auto">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Resolute</title>
<link rel="stylesheet" href="{up}_static/pygments.css">
<link rel="stylesheet" href="{up}_static/styles/furo.css">
<link rel="stylesheet" href="{up}_static/resolute.css">
</head>
<body>
<script>document.body.dataset.theme = localStorage.getItem("theme") || "auto";</script>
<main class="source-page">
<p><a href="{up}index.html">Resolute</a></p>
<h1>{title}</h1>
{code}
</main>
</body>
</html>
"""


def module_of(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find(name: str) -> object:
    """Return what a dotted name stands for: a module, or something in one.

    Raises:
        LookupError: there is no such thing.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if part not in vars(found) and part not in dir(found):
                raise LookupError(f"{name}: {found} has no {part}")
            found = getattr(found, part)
        return found
    raise LookupError(f"{name}: no such module")


def place_of(name: str, words: str = "") -> tuple[Path, int]:
    """Return the file and line of a name's definition, or of the one line in it that contains some words.

    Raises:
        LookupError: there is no such name, or not exactly one such line.
    """
    found = find(name)
    found = inspect.unwrap(found.fget if isinstance(found, property) else found)  # pyright: ignore[reportArgumentType]
    if isinstance(found, types.ModuleType):
        path, lines, first = Path(found.__file__ or ""), inspect.getsource(found).splitlines(), 1
    else:
        try:
            path = Path(inspect.getsourcefile(found) or "")
            lines, first = inspect.getsourcelines(found)
        except TypeError:
            raise LookupError(f"{name} has no source of its own") from None
    if not words:
        return path, first
    hits = [first + index for index, line in enumerate(lines) if words in line]
    if len(hits) != 1:
        raise LookupError(f"{name}: {len(hits)} lines contain {words!r}; exactly one should")
    return path, hits[0]


def link_of(name: str, up: str, words: str = "") -> str | None:
    """Return the address of a line from a page that lies ``up`` from the root; None for what is not the package's."""
    try:
        path, line = place_of(name, words)
    except LookupError:
        if words:
            raise
        return None
    return f"{up}{page_of(path)}.html#L-{line}" if path.is_relative_to(PACKAGE) else None


def page_of(path: Path) -> str:
    """Return the name of a file's page on the site."""
    return f"source/{path.relative_to(PACKAGE.parent).with_suffix('').as_posix()}"


def link_target(text: str, path: Path, words: str) -> tuple[str, str]:
    """Return the dotted name and the words that a link of a page is about.

    A link says its symbol in backticks, its file as its target, and the words of the line as its title, as in
    ``[`Linf.project`](../src/resolute/attacks/ball.py "clamp")``. Without backticks it is about the file.
    """
    symbol = re.fullmatch(r"`([\w.]+)(?:\(\))?`", text)
    module = module_of(path)
    return (f"{module}.{symbol[1]}" if symbol else module), words


def write_pages(out: Path) -> None:
    """Write a page of each file of the package, with a number and an anchor a line.

    Not through the theme: the menu would be computed once more for each, which takes longer than all the rest.
    """
    formatter = HtmlFormatter(linenos="inline", linespans="L", anchorlinenos=True, cssclass="highlight source")
    for path in sorted(PACKAGE.rglob("*.py")):
        page = out / f"{page_of(path)}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        title = path.relative_to(PACKAGE.parent).as_posix()
        code = highlight(path.read_text(encoding="utf-8"), PythonLexer(), formatter)
        up = "../" * page_of(path).count("/")
        page.write_text(PAGE.format(title=html.escape(title), code=code, up=up), encoding="utf-8")
