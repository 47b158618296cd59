"""Stages the pages of the site: those of the repository with their links bent, and those made from the program."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import types
from pathlib import Path

import sources
import typer
from sources import PACKAGE, ROOT
from typer.cli import get_docs_for_click

from resolute.cli.app import with_commands

DOCS = ROOT / "docs"
# Goes to the site as it is: its page names the files beside it.
LEADERBOARD = DOCS / "leaderboard"
# What lies outside of docs/ and becomes a page all the same.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "locks/README.md": "locks.md",
}
# The order of the menu. A page that is not there is left out; one that is not named here goes to the end of the guide.
MENU = {
    "Begin": ["install", "gallery", "serve"],
    "You ship a model": [
        "howto/ship", "faithful", "harden", "zoo", "onnx", "flags", "leaderboard",
        "certified-restoration", "restoration", "findings",
    ],
    "You run a quality benchmark": ["howto/benchmark", "audit", "metrics", "certificates", "certified"],
    "You do research": [
        "howto/research", "training", "running", "records", "conventions", "maths", "maths-certified", "results",
    ],
    "Guide": ["security"],
    "Reference": ["cli/index", "api/index"],
    "Project": ["contributing", "locks", "changelog", "benchmarks"],
}  # fmt: skip
TABLES = {
    "results": ["bsd100"],
    "certified": [
        "agreement", "certified-iqa", "certified-iqa-ablation", "certified-iqa-dncnn", "certified-iqa-mobilenet",
        "metric-as-loss",
    ],
}  # fmt: skip
LINK = re.compile(r'\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?:\s+"(?P<words>[^"]*)")?\)')


def stage(folder: Path) -> None:
    """Write every page of the site into an empty folder."""
    pages = {DOCS / old.relative_to(DOCS): old.relative_to(DOCS).as_posix() for old in sorted(DOCS.rglob("*.md"))}
    pages |= {ROOT / old: new for old, new in ELSEWHERE.items() if old != "README.md"}
    pages |= {card: f"cards/{card.name}" for card in sorted((PACKAGE / "weights").glob("*.md"))}
    made = {new: bent(old, new, pages, folder) for old, new in pages.items()}
    made |= command_pages() | api_pages()
    made["index.md"] += menu([name.removesuffix(".md").removesuffix(".rst") for name in made])
    for owner, tables in TABLES.items():
        made[f"{owner}.md"] += toctree("", [table for table in tables if f"{table}.md" in made])
    made["results.md"] += toctree("", sorted(name[:-3] for name in made if name.startswith("studies/")))
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(DOCS / "images", folder / "images", dirs_exist_ok=True)


def bent(old: Path, new: str, pages: dict[Path, str], folder: Path) -> str:
    """Return a page of the repository with its links as the site needs them."""
    up = "../" * new.count("/")

    def bend(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(old.parent / match["target"]))
        anchor = match["anchor"] or ""
        if ":" in match["target"] or not target.exists():
            return match[0]
        if target.name == "README.md" and target.parent == ROOT:
            return f"[{match['text']}]({up}index.md{anchor})"
        if target in pages:
            return f"[{match['text']}]({os.path.relpath(pages[target], Path(new).parent)}{anchor})"
        if target.suffix == ".py" and target.is_relative_to(PACKAGE):
            name, words = sources.link_target(match["text"], target, match["words"] or "")
            return f'<a class="line" href="{sources.link_of(name, up, words)}">{match["text"]}</a>'
        if target.is_relative_to(DOCS / "images"):
            return match[0]
        if target.is_relative_to(LEADERBOARD):
            return f'<a href="{up}{target.relative_to(DOCS).as_posix()}">{match["text"]}</a>'
        copy = folder / "files" / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, copy)
        return f"[{match['text']}]({up}files/{target.relative_to(ROOT).as_posix()})"

    text = old.read_text(encoding="utf-8")
    # Blocks and spans of code that show a link are no links.
    parts = re.split(r"(^```.*?^```$|(?<!`)``(?!`).+?``)", text, flags=re.DOTALL | re.MULTILINE)
    text = "".join(part if part.startswith("``") else LINK.sub(bend, part) for part in parts)
    if new.startswith("cards/"):
        text = f"---\norphan: true\n---\n{text}"
    elif not text.startswith("# "):
        text = f"# Study: {old.stem}\n\n{text}"
    return text


def menu(names: list[str]) -> str:
    """Return the site's menu, as invisible lists of pages at the end of the first one."""
    named = {page for pages in [*MENU.values(), *TABLES.values()] for page in pages} | {"index"}
    rest = [name for name in names if name not in named and not name.startswith(("cards/", "studies/", "api/", "cli/"))]
    chapters = {title: list(pages) for title, pages in MENU.items()}
    chapters["Guide"] += rest
    return "".join(toctree(title, [page for page in pages if page in names]) for title, pages in chapters.items())


def toctree(caption: str, pages: list[str]) -> str:
    said = f":caption: {caption}\n" if caption else ""
    return "\n\n```{toctree}\n:hidden:\n" + said + "\n".join(["", *pages]) + "\n```\n"


def command_pages() -> dict[str, str]:
    """Return a page for each command of the program, as it explains itself."""
    group = with_commands()
    context = typer.Context(group, info_name="resolute", obj={"rich_markup_mode": "rich"})
    pages: dict[str, str] = {}
    rows = ["# Command line", "", group.help or "", "", "| command | what it does |", "|---|---|"]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        text = get_docs_for_click(obj=command, ctx=context, call_prefix="resolute")
        text = re.sub(r"(\w[^\n:\[]*):\s+\[bold\](.*?)\[/bold\]", r"**\1**:\n\n```bash\n\2\n```", text)
        pages[f"cli/{name}.md"] = text
        rows.append(f"| [`resolute {name}`]({name}.md) | {(command.help or '').splitlines()[0]} |")
    index = "\n".join([*rows, "", "What exit codes mean: [Running](../running.md)."])
    return pages | {"cli/index.md": index + toctree("", [name[4:-3] for name in pages])}


def api_pages() -> dict[str, str]:
    """Return a page for each package with public names, and one with all names of ``resolute`` itself."""
    package = importlib.import_module("resolute")
    names = [path.name for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").exists() and path.name != "cli"]
    public = {f"resolute.{name}": importlib.import_module(f"resolute.{name}").__all__ for name in names}
    where = {id(getattr(importlib.import_module(module), name)): f"{module}.{name}"
             for module, listed in public.items() for name in listed}  # fmt: skip
    own = [name for name in package.__all__ if not name.startswith("_") and name not in names]
    for name in own:
        found = getattr(package, name)
        if id(found) not in where:
            public.setdefault(found.__module__, []).append(name)
            where[id(found)] = f"{found.__module__}.{name}"
    pages = {f"api/{module}.rst": api_page(module, sorted(listed)) for module, listed in sorted(public.items())}
    rows = "\n".join(
        f"| {{py:obj}}`{name} <{where[id(getattr(package, name))]}>` | {first_line(getattr(package, name))} |"
        for name in own
    )
    packages = "\n".join(f"| [`{module}`]({module}.rst) | {first_line(importlib.import_module(module))} |"
                         for module in sorted(public))  # fmt: skip
    index = (
        f"# Python\n\n{first_line(package)} Everything most programs need is in `resolute` itself.\n\n"
        f"| package | what it holds |\n|---|---|\n{packages}\n\n## Names of `resolute`\n\n"
        f"| name | what it is |\n|---|---|\n{rows}\n"
    )
    return pages | {"api/index.md": index + toctree("", [name[4:-4] for name in pages])}


def first_line(thing: object) -> str:
    line = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
    return line.replace("|", "\\|")


def api_page(module: str, names: list[str]) -> str:
    parts = [f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :no-members:\n"]
    for name in names:
        found = getattr(importlib.import_module(module), name)
        kind = "class" if inspect.isclass(found) else "function" if isinstance(found, types.FunctionType) else "data"
        if inspect.isclass(found) and issubclass(found, BaseException):
            kind = "exception"
        parts.append(f".. auto{kind}:: {module}.{name}\n")
    return "\n".join(parts)
