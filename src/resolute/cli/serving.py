"""The command that opens a page to try things by hand: serve."""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from typing import Annotated

import typer
from rich.markup import escape

from resolute import runtime
from resolute.cli.app import Device, app
from resolute.errors import ConfigError
from resolute.serve.jobs import HOST
from resolute.terminal import console


@app.command(epilog="Example:  [bold]resolute serve mine.pth[/bold]")
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to offer besides the built-in ones, by name or file.")
    ] = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; no other machine can reach it.", min=1024, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: Device = "auto",
) -> None:
    r"""Open a local page: drop an image, attack a model, see what it invents, harden one, certify a score.

    Needs the extra demo: pip install 'resolute\[demo]'. Stop it with Ctrl-C; what was uploaded is deleted then.
    """
    _check_free(port)
    from resolute.serve.page import Page, model_names

    page = Page(model_names(models or ()), runtime.resolve_device(device))
    address = page.start(port)
    try:
        console.print(f"serving [bold]{escape(address)}[/bold] on this machine alone; Ctrl-C stops it", soft_wrap=True)
        if browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        page.close()


def _check_free(port: int) -> None:
    """Refuse a port that is taken, before half a minute of imports."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(f"port {port} is taken; choose another one with --port") from None
