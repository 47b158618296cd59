"""The local page itself, on gradio: four tabs about one image, bound to this machine alone."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from resolute.defences import load_defended
from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.models.registry import built_in_models
from resolute.serve import words
from resolute.serve.desk import Desk, gr, theme
from resolute.serve.jobs import HOST, MAX_BYTES
from resolute.serve.tabs import attack_tab, certify_tab, faithful_tab, harden_tab

# So many pages keep what they have computed, for the slider of the differences; older ones start again.
SESSIONS = 16


class Page:
    """The page with its components; one thing is computed at a time.

    Args:
        models: names or files to choose from, besides the built-in ones, and before them.
        device: a torch device.
    """

    def __init__(self, models: Sequence[str] = (), device: str = "cpu") -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="resolute-", ignore_cleanup_errors=True)
        shown, work = (Path(self._temporary.name, name) for name in ("shown", "work"))
        work.mkdir()
        # Before the first component, which settles for good where its pictures go: what is left elsewhere would neither
        # be served nor deleted.
        os.environ["GRADIO_TEMP_DIR"] = str(shown)
        self._device = device
        # The best known one first; what others gave on the command line before it.
        built_in = [name for name in built_in_models() if not name.startswith("denoiser-")]
        restorer = functools.lru_cache(maxsize=4)(self._load)
        for name in models:
            restorer(name)
        with gr.Blocks(title="Resolute", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            gr.Markdown("# Resolute\nAttack, question, harden and certify by hand. Images stay on this machine.")
            names = list(dict.fromkeys([*models, "edsr-s", *built_in]))
            self._desk = Desk.of(names, device, work, restorer)
            for title, tab in {
                "Attack": attack_tab, "Faithful": faithful_tab, "Harden": harden_tab, "Certify": certify_tab
            }.items():  # fmt: skip
                with gr.Tab(title):
                    tab(self._desk)
            self.blocks.unload(self._desk.stop)
        self.blocks.queue(default_concurrency_limit=1, max_size=8)

    def _load(self, name: str) -> Restorer:
        return load_defended(name).to(self._device)

    def start(self, port: int) -> str:
        """Serve the page on this machine alone and return its address.

        Raises:
            ConfigError: the port is taken.
        """
        # Other names that lead here are refused, or a page elsewhere could send its visitors' browsers to this one.
        guard = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        try:
            _, address, _ = self.blocks.launch(
                server_name=HOST, server_port=port, share=False, prevent_thread_lock=True, quiet=True, css=words.CSS,
                max_file_size=MAX_BYTES, footer_links=[], enable_monitoring=False, pwa=False, mcp_server=False,
                ssr_mode=False, run_history=False, app_kwargs={"middleware": [guard]}, theme=theme(),
                state_session_capacity=SESSIONS,
            )  # fmt: skip
        except OSError:
            raise ConfigError(f"port {port} is taken; choose another one with --port") from None
        return str(address)

    def close(self) -> None:
        """Stop serving, and delete what was uploaded."""
        for halt in self._desk.stops.values():
            halt.set()
        self.blocks.close(verbose=False)
        self._temporary.cleanup()


def model_names(models: Sequence[Path | str]) -> list[str]:
    """Return models as the page lists them: files by their full path."""
    return [str(Path(model).resolve()) if Path(model).is_file() else str(model) for model in models]
