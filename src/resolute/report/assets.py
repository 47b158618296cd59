"""What all pages are made of: templates, styles, scripts, and data that no browser takes for anything else."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata, resources

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from resolute.studies.summary import attack_title

# Of a page, in millions of bytes: what mail servers let through, with room for the third that mail adds.
MEGABYTES = 10.0

# What turns the text of a page around, or stands for nothing; a name may hold it.
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def asset(name: str) -> str:
    """Return a template, style or script of the pages.

    Example:
        >>> asset("page.css").startswith(":root")
        True
    """
    return (resources.files("resolute.report") / name).read_text(encoding="utf-8")


def render(template: str, values: Mapping[str, object], scripts: Sequence[str] = ("sorting.js",)) -> str:
    """Return a page: names are escaped, and a name that is not there is an error.

    Args:
        template: one that extends ``base.html.j2``.
        values: by the names in it.
        scripts: to run on it.
    """
    common = {
        "version": metadata.version("resolute"),
        "style": Markup(asset("page.css")),
        "script": Markup("".join(map(asset, scripts))),
    }
    text = _environment().get_template(template).render({**common, **values})
    # A file name that is no valid text arrives here as lone surrogates, which a file cannot hold.
    return _UNSHOWN.sub("?", text).encode(errors="replace").decode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["attack"] = attack_title
    return environment


def embed(data: object) -> Markup:
    """Return JSON that cannot end the script element which holds it.

    Example:
        >>> "</script>" in embed({"name": "</script>"})
        False
    """
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


@functools.cache
def plotting_library() -> Markup:
    """Return the plotting library packed, a third of its size; ``viewer.js`` unpacks it in the browser."""
    # Without the time of day, so that equal pages are equal files.
    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii"))
