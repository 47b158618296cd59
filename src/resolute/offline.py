"""Keeping off the network where that is asked for, whatever a library wants to fetch."""

from __future__ import annotations

import ipaddress
import os
import sys

from resolute.errors import ConfigError

OFFLINE = "RESOLUTE_OFFLINE"

_YES = ("1", "true", "yes", "on")

# Where the address of another machine stands among the arguments of an event of Python's own.
_HOST = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def why_offline() -> str:
    """Return who has forbidden the network; nothing where it may be used.

    Example:
        >>> why_offline()
        ''
    """
    names = {OFFLINE: "--offline was asked for", "HF_HUB_OFFLINE": "HF_HUB_OFFLINE is set"}
    return next((why for name, why in names.items() if is_set(name)), "")


def keep_offline() -> None:
    """Refuse to reach any other machine from this process, if ``RESOLUTE_OFFLINE`` is set; there is no way back.

    What is written in Python is held to it, and not what brings sockets of its own in C, as Ray does.
    """
    if is_set(OFFLINE):
        sys.addaudithook(_refuse)


def is_set(name: str) -> bool:
    """Tell whether a variable of the environment says yes."""
    return os.environ.get(name, "").lower() in _YES


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _HOST:
        return
    address = arguments[_HOST[event]]
    host = address[0] if isinstance(address, tuple) and address else address
    # A path or none is a socket of this machine.
    if isinstance(address, tuple) or event.startswith("socket.get"):
        name = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        if not _here(name):
            raise ConfigError(f"{name[:200]} is not asked for anything, since --offline was asked for; leave it out")


def _here(name: str) -> bool:
    try:
        return name in ("", "localhost") or ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False
