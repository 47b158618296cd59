"""What all pages are made of: templates, styles, scripts, and data that no browser takes for anything else."""

from __future__ import annotations

import base64
import functools
import gzip
import json
from importlib import resources

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from resolute import figures
from resolute.studies.summary import attack_title

# Of a page, in millions of bytes: what mail servers let through, with room for the third that mail adds.
MEGABYTES = 10.0


def asset(name: str) -> str:
    """Return a template, style or script of the pages.

    Example:
        >>> asset("page.css").startswith(":root")
        True
    """
    return (resources.files("resolute.report") / name).read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    """Return what renders the templates: names are escaped, and a name that is not there is an error."""
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {
        "figure": figures.figure,
        "interval": figures.interval,
        "doubt": figures.doubt,
        "share": figures.share,
        "attack": attack_title,
        "signed": figures.signed,
        "spread": figures.spread,
    }
    return found


def embed(data: object) -> Markup:
    """Return JSON that cannot end the script element which holds it.

    Example:
        >>> "</script>" in embed({"name": "</script>"})
        False
    """
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


@functools.cache
def plotting_library() -> Markup:
    """Return the plotting library packed, a third of its size; ``page.js`` unpacks it in the browser."""
    # Without the time of day, so that equal pages are equal files.
    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii"))


def size_of(page: str) -> int:
    """Return how many bytes a page takes on the disk."""
    return len(page.encode(errors="replace"))
