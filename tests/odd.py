"""Odd input from seeds: what falls can be had again by its number.

RESOLUTE_HOSTILE=full in the environment tries as many as ``docs/security.md`` says.
"""

import codecs
import copy
import json
import math
import os

import pytest

FULL = os.environ.get("RESOLUTE_HOSTILE") == "full"

NAMES = (
    "",
    "..",
    "../../x",
    "/tmp/x",
    "a/b",
    "a\0b",
    "-",
    "C:\\x",
    "x" * 300,
    "\u202eevil",
    "caf\u00e9",
    "<b>&\"'",
    "\ud800",
)
NUMBERS = (0, -1, 1, 2, 7.5, 1e-320, 1e308, -1e308, 255, 256, 2**31, 2**63, 10**400, math.nan, math.inf, -math.inf)
OTHERS = (None, True, False, [], {}, [None], [[1]], {"": {}}, [1, "a"], "1", "nan", "inf", "4/255", "1e999")


def tried(small, full):
    """Try as many seeds; the fixture ``rng`` is the generator of each."""

    def marked(test):
        return pytest.mark.hostile(pytest.mark.parametrize("seed", range(full if FULL else small))(test))

    return marked


def value(rng):
    """Any value that JSON or TOML can hold and that hardly anything expects."""
    found = rng.choice((*NAMES, *NUMBERS, *OTHERS, deep))
    return deep(rng.choice((40, 90, 300))) if found is deep else copy.deepcopy(found)


def deep(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found


def forged(rng, tree):
    """A copy of a tree of dictionaries and lists in which one place holds something else, is missing or is new."""
    found = copy.deepcopy(tree)
    inner = rng.choice(list(branches(found)))
    places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    what = rng.choice(("change", "change", "change", "drop", "add"))
    if what == "add" or not places:
        if isinstance(inner, dict):
            inner[rng.choice(("another", *NAMES))] = value(rng)
        else:
            inner.append(value(rng))
    elif what == "drop":
        del inner[rng.choice(places)]
    else:
        inner[rng.choice(places)] = value(rng)
    return found


def branches(tree):
    if isinstance(tree, dict | list):
        yield tree
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from branches(inner)


def damaged(rng, content):
    """Bytes with a part flipped, cut out, repeated, zeroed or put in, or written by another program."""
    begin = rng.randrange(len(content) + 1)
    end = min(len(content), begin + rng.choice((1, 1, 4, 64, 4096)))
    odd = bytes(rng.randrange(256) for _ in range(end - begin))
    return rng.choice(
        (
            content[:begin],
            content[:begin] + odd + content[end:],
            content[:begin] + content[end:],
            content[:begin] + content[begin:end] * 2 + content[end:],
            content[:begin] + bytes(end - begin) + content[end:],
            content[begin:],
            codecs.BOM_UTF8 + content,
            content.replace(b"\n", b"\r\n"),
            content + content,
            content.decode(errors="replace").encode("utf-16"),
        )
    )


def text_of(tree):
    """JSON as a careless program writes it: NaN and lone surrogates included."""
    return json.dumps(tree).encode()


def toml_of(tree):
    """A dictionary as TOML, a line a key."""
    return "".join(f"{json.dumps(key)} = {_inline(value)}\n" for key, value in tree.items())


def _inline(value):
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_inline(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def one_line(error, name):
    """What a person can act on: a line that names the file."""
    text = str(error)
    assert name in text, text
    assert "\n" not in text
    assert len(text) < 2000
