"""The checker that the import hook applies to every annotation of the package while the tests run."""

from beartype import BeartypeConf, beartype

# As type checkers see it, an int will do where a float is asked for.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
