"""Sphinx's configuration. ``python docs/site/build.py`` stages the pages and runs it."""

from pathlib import Path

import sources
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

import resolute

project = "Resolute"
author = "the authors of Resolute"
version = release = resolute.__version__
language = "en"
# Quotes and dashes stay as typed: a curly dash in front of an option cannot be copied.
smartquotes = False

exclude_patterns = ["trees", "files"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "Resolute"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["resolute.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the line of a documented name on the site's own page of its source."""
    return sources.link_of(f"{info['module']}.{info['fullname']}", "../") if info["module"] else None


def visit_math(translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script or a font from elsewhere."""
    block = isinstance(node, nodes.math_block)
    markup = convert(node.astext(), display="block" if block else "inline")
    if "\\" in markup:  # what the converter does not know stays as it was
        logging.getLogger(__name__).warning("unknown command in the formula %s", node.astext(), location=node)
    translator.body.append(f'<div class="math">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("build-finished", lambda built, error: error or sources.write_pages(Path(built.outdir)))
