"""The checker that the import hook applies to every annotation of the package while the tests run."""

from typing import Any

from beartype import BeartypeConf, beartype

# As type checkers see it, an int will do where a float is asked for.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function):
    """Check a function's annotations.

    The hook asks for two checks of a call: of what goes in, and afterwards of all that and of what comes out, for which
    the sizes found before still hold. To look once at what goes in is enough, and takes half of the time.
    """
    result = function.__annotations__.get("return", Any)
    if result is not Any:
        function.__annotations__ = {"return": result}
    return _checked(function)
