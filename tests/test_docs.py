"""Links of the pages lead somewhere, and those of formulas to the line that computes them."""

import inspect
import os
import re
import types
from pathlib import Path

import pages
import pytest
import sources
from pages import LINK
from sources import PACKAGE, ROOT

PAGES = [page for folder in (".", "benchmarks", "docs") for page in sorted((ROOT / folder).glob("*.md"))]
PAGES += sorted(page for folder in ("howto", "studies") for page in (ROOT / "docs" / folder).glob("*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def links_of(text, page):
    """Return (text, file, words) of the links of a page to files."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [match for match in LINK.finditer(text) if ":" not in match["target"]]
    return [(m["text"], Path(os.path.normpath(page.parent / m["target"])), m["words"] or "") for m in found]


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name):
    page = ROOT / name
    for _, target, _ in links_of(page.read_text(encoding="utf-8"), page):
        assert target.exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_links_to_the_source_find_one_line(name):
    page = ROOT / name
    for text, target, words in links_of(page.read_text(encoding="utf-8"), page):
        if target.suffix == ".py" and target.is_relative_to(PACKAGE):
            path, line = sources.place_of(*sources.link_target(text, target, words))
            assert path == target
            assert words in path.read_text(encoding="utf-8").splitlines()[line - 1]


def sections(name):
    """Return the parts of a page under its third-rank headings, by heading."""
    parts = re.split(r"^### (.*)$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


MATHS = ["docs/maths.md", "docs/maths-certified.md"]
SECTIONS = [(name, heading) for name in MATHS for heading in sections(name)]


@pytest.mark.parametrize(("name", "heading"), SECTIONS)
def test_a_formula_has_a_line_whose_documentation_names_it(name, heading):
    text = sections(name)[heading]
    assert "$$" in text
    links = [link for link in links_of(text, ROOT / name) if link[1].suffix == ".py"]
    assert links
    label = heading.partition(":")[0]
    if label[-1].isdigit():
        documented = " ".join(documentation(*sources.link_target(*link)) for link in links)
        assert labels(label) <= labels(documented), f"none of {[link[0] for link in links]} names {label}"


def test_every_equation_of_the_first_paper_has_its_place():
    found = set().union(*(labels(heading.partition(":")[0]) for heading in sections(MATHS[0])))
    assert found >= {f"eq {number}" for number in range(1, 16)}


def test_a_line_that_moved_away_is_noticed():
    with pytest.raises(LookupError, match="0 lines contain"):
        sources.place_of("resolute.attacks.ball.Linf.project", "torch.no_such_function")
    with pytest.raises(LookupError, match="has no"):
        sources.place_of("resolute.attacks.ball.Linf.no_such_method")
    with pytest.raises(LookupError, match="exactly one"):
        sources.place_of("resolute.attacks.ball", "clamp")


def test_pages_of_the_program_show_every_command_and_public_name():
    import resolute

    made = pages.command_pages() | pages.api_pages()
    assert "--epsilon" in made["cli/attack.md"]
    assert "resolute attack edsr-s photo.png" in made["cli/attack.md"]
    index = made["api/index.md"]
    for name in resolute.__all__:
        if isinstance(getattr(resolute, name), types.ModuleType):
            assert f"[`resolute.{name}`](resolute.{name}.rst)" in index
        elif not name.startswith("_"):
            assert f"`{name} <resolute." in index


def documentation(symbol, words):
    """Return what is written about a symbol: by itself, by the class that it belongs to, and by its module."""
    parts = symbol.split(".")
    return " ".join(inspect.getdoc(sources.find(".".join(parts[:end]))) or "" for end in range(3, len(parts) + 1))


def labels(text):
    """Return the equations, theorems, definitions and sections that a text names.

    ``eqs 3 to 5 and 7`` is four of them.
    """
    found = {
        f"{kind.lower()} {number}"
        for kind, number in re.findall(r"(Theorem|Definition|section) ([\d.]*\d)", text, re.I)
    }
    for run in re.findall(r"\beqs?\.? (\d+(?:(?:, | and | to )\d+)*)", text, re.IGNORECASE):
        numbers = {int(number) for number in re.findall(r"\d+", run)}
        for first, last in re.findall(r"(\d+) to (\d+)", run):
            numbers |= set(range(int(first), int(last) + 1))
        found |= {f"eq {number}" for number in numbers}
    return found
