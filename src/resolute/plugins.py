"""Plug-ins: what other packages add under a name, found by their entry points and imported when the name is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from typing import Literal, final, get_args

from resolute.errors import ConfigError, class_and_line
from resolute.of_file import OwnCode, own_code

Group = Literal["models", "attacks", "objectives", "datasets", "studies"]
GROUPS: tuple[Group, ...] = get_args(Group)


@final
@dataclasses.dataclass(frozen=True)
class Plugin:
    """A name that a package adds; nothing of the package has been imported yet.

    Attributes:
        group: what it is one of.
        name: what it is called in Resolute.
        package: the distribution that adds it.
        version: of the distribution.
        entry: where it lies, as ``module:attribute``.
    """

    group: Group
    name: str
    package: str
    version: str
    entry: metadata.EntryPoint

    def load(self) -> object:
        """Import it.

        Raises:
            ConfigError: that fails; the text names the package.
        """
        try:
            return self.entry.load()
        except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
            raise self.error(f"cannot be imported: {class_and_line(error)}") from error

    def failed(self, what: str, error: BaseException) -> ConfigError:
        """Return the error that says that its code raised another."""
        return self.error(f"{what}: {class_and_line(error)}")

    def error(self, what: str) -> ConfigError:
        """Return the error that says what is wrong with this plug-in, and whose it is."""
        return ConfigError(
            f"{self.name!r} of the package {self.package} {self.version} ({self.entry.value}) {what}; update that "
            "package or uninstall it"
        )


def plugins(group: Group) -> list[Plugin]:
    """Return what the installed packages add to a group, sorted by name; none of them is imported.

    Args:
        group: entry points are read from ``resolute.`` and this name.

    Example:
        >>> plugins("datasets")
        []
    """
    found = [
        Plugin(group, entry.name, entry.dist.name, entry.dist.version, entry)
        for entry in metadata.entry_points(group=f"resolute.{group}")
        if entry.dist is not None
    ]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def find_plugin(group: Group, name: str) -> Plugin | OwnCode | None:
    """Return the plug-in of a name, the code that ``FILE.py:NAME`` names, or None.

    Raises:
        ConfigError: several packages add that name.
    """
    if code := own_code(name):
        return code
    found = [plugin for plugin in plugins(group) if plugin.name == name]
    if len(found) > 1:
        packages = " and ".join(plugin.package for plugin in found)
        raise ConfigError(f"{name!r} is added by {packages}; uninstall all of them but one")
    return found[0] if found else None


def known(group: Group, built_in: Sequence[str]) -> str:
    """Return the names of a group in a row, those of plug-ins last.

    Example:
        >>> known("datasets", ["set5", "set14"])
        'set5, set14'
    """
    return ", ".join([*built_in, *(plugin.name for plugin in plugins(group))])
