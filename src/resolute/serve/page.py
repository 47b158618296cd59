"""The local page itself, on gradio: two tabs, bound to this machine alone."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor

from resolute.defences import load_defended
from resolute.errors import ConfigError, ResoluteError
from resolute.folders import SUFFIXES
from resolute.images import SAMPLE_NAMES, to_uint8
from resolute.models.base import Restorer, Scorer
from resolute.models.registry import built_in_models
from resolute.models.scorers import built_in_scorers, load_scorer
from resolute.runtime import give_back
from resolute.serve import words
from resolute.serve.jobs import HOST, MAX_BYTES, attack_steps, certify_steps, read_upload
from resolute.studies.certification import DENOISER
from resolute.studies.score_study import behind

try:
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from gradio.themes import Default
except ImportError:
    raise ConfigError("this page needs gradio; install it with: pip install 'resolute[demo]'") from None

TIMES, SIGMA = "\u00d7", "\u03c3"
ATTACKS = {"I-FGSM": "ifgsm", "MI-FGSM": "mifgsm", "PGD": "pgd", "APGD": "apgd", "FDA": "fda", "FGSM, one step": "fgsm"}
SHRINK, AS_IT_IS = "a photograph: shrink it first, then compare with it", "a small image to be enlarged as it is"
# Without the one that shares pictures with a site.
BUTTONS: Any = ["download", "fullscreen"]

# So many pages keep what they have computed, for the slider of the differences; older ones start again.
SESSIONS = 16

Update = dict[Any, Any]


class Page:
    """The page with its components; one attack or certificate is computed at a time.

    Args:
        models: names or files to choose from, besides the built-in ones, and before them.
        device: a torch device.
    """

    def __init__(self, models: Sequence[str] = (), device: str = "cpu") -> None:
        # Before the first component, which settles for good where its pictures go: what is left elsewhere would neither
        # be served nor deleted.
        self._temporary = tempfile.TemporaryDirectory(prefix="resolute-", ignore_cleanup_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = self._temporary.name
        self._device = device
        self._stops: dict[str, threading.Event] = {}
        # The best known one first; what others gave on the command line before it.
        built_in = [name for name in built_in_models() if not name.startswith("denoiser-")]
        names = [*models, "edsr-s", *built_in]
        self._restorer = functools.lru_cache(maxsize=4)(self._load)
        for name in models:
            self._restorer(name)
        with gr.Blocks(title="Resolute", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            gr.Markdown("# Resolute\nTry an attack or a certificate by hand. Images stay on this machine.")
            with gr.Tab("Attack"):
                self._attack_tab(list(dict.fromkeys(names)))
            with gr.Tab("Certify"):
                self._certify_tab()
            self.blocks.unload(self._stop)
        self.blocks.queue(default_concurrency_limit=1, max_size=8)

    def _attack_tab(self, models: list[str]) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file, sample = self._image_choice("attack")
                kind = gr.Radio([SHRINK, AS_IT_IS], value=SHRINK, label="The image is")
                model = gr.Dropdown(models, value=models[0], label="Model", elem_id="attack-model")
                attack = gr.Dropdown(list(ATTACKS), value="I-FGSM", label="Attack", elem_id="attack-kind")
                level = gr.Slider(1, 32, 4, step=1, label="Budget, in levels of 255", elem_id="attack-level")
                steps = gr.Slider(1, 100, 20, step=1, label="Steps", elem_id="attack-steps")
                side = gr.Slider(16, 256, 96, step=8, label="Use the middle, pixels a side of the input")
                with gr.Row():
                    go = gr.Button("Attack", variant="primary", elem_id="attack-go")
                    stop = gr.Button("Stop", elem_id="attack-stop")
            with gr.Column(scale=2, min_width=320):
                status = gr.HTML(words.said("Choose an image and press Attack."), elem_id="attack-status")
                figures = gr.HTML(elem_id="attack-figures")
                label = "Output: clean on the left, attacked on the right"
                slider = gr.ImageSlider(label=label, format="png", elem_id="attack-slider", buttons=BUTTONS)
                gain = gr.Slider(1, 32, 8, step=1, label="Differences are amplified by", elem_id="attack-gain")
                with gr.Row():
                    changes = [_picture(f"Difference of the {what}, {TIMES}8") for what in ("outputs", "inputs")]
                with gr.Row():
                    clean, attacked = _picture("Clean input"), _picture("Attacked input, to keep")
        trial = gr.State(None)

        def differences(trial: Any, gain: float) -> list[Any]:
            if trial is None:
                return [gr.skip(), gr.skip()]
            pairs = ((trial.clean_output, trial.attacked_output), (trial.clean, trial.attacked))
            return [
                gr.update(value=_change(*pair, gain), label=f"Difference of the {what}, {TIMES}{gain:g}")
                for what, pair in zip(("outputs", "inputs"), pairs, strict=True)
            ]

        def run(
            path: str | None, sample: str, kind: str, model: str, attack: str, level: float, steps: float,
            side: float, gain: float, request: gr.Request,
        ) -> Generator[Update]:  # fmt: skip
            halt = self._begin(request)
            try:
                yield {status: words.said("Reading."), figures: ""}
                restorer = self._restorer(model)
                found = yield from _shown(
                    attack_steps(
                        restorer, read_upload(path, sample), kind=ATTACKS[attack], level=level, steps=int(steps),
                        side=int(side), photograph=kind == SHRINK, stop=halt,
                    ), status, "attack step",
                )  # fmt: skip
            except (ResoluteError, FloatingPointError, ValueError) as error:
                yield {status: words.refused(error)}
                return
            finally:
                # Every job has a thread of its own, and the memory of each would be kept for it alone.
                give_back()
            if found is None:
                yield {status: words.said("Stopped.")}
                return
            yield {
                status: words.said("Done."), figures: words.figures(found), trial: found,
                slider: (to_uint8(found.clean_output), to_uint8(found.attacked_output)),
                clean: to_uint8(found.clean), attacked: to_uint8(found.attacked),
                **dict(zip(changes, differences(found, gain), strict=True)),
            }  # fmt: skip

        go.click(
            run, [file, sample, kind, model, attack, level, steps, side, gain],
            [status, figures, slider, *changes, clean, attacked, trial],
            show_progress="hidden", concurrency_id="work", api_visibility="private",
        )  # fmt: skip
        stop.click(self._stop, queue=False, api_visibility="private")
        gain.change(differences, [trial, gain], changes, queue=False, api_visibility="private")

    def _certify_tab(self) -> None:
        metrics = list(built_in_scorers())
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file, sample = self._image_choice("certify")
                metric = gr.Dropdown(metrics, value=metrics[0], label="Quality metric", elem_id="certify-metric")
                denoise = gr.Checkbox(False, label="Behind the denoiser: narrower intervals, several times as long")
                sigma = gr.Slider(0.02, 0.5, 0.12, step=0.01, label=f"Noise {SIGMA}")
                epsilon = gr.Slider(0.01, 0.5, 0.05, step=0.01, label="l2 radius ε over all pixels and channels")
                samples = gr.Slider(20, 1000, 200, step=10, label="Noisy copies", elem_id="certify-samples")
                fit = gr.Slider(64, 512, 256, step=32, label="Shrink to so many pixels a side")
                with gr.Row():
                    go = gr.Button("Certify", variant="primary", elem_id="certify-go")
                    stop = gr.Button("Stop", elem_id="certify-stop")
            with gr.Column(scale=2, min_width=320):
                status = gr.HTML(words.said("Choose an image and press Certify."), elem_id="certify-status")
                result = gr.HTML(elem_id="certify-result")

        def run(
            path: str | None, sample: str, metric: str, denoise: bool, sigma: float, epsilon: float, samples: float,
            fit: float, request: gr.Request,
        ) -> Generator[Update]:  # fmt: skip
            halt = self._begin(request)
            try:
                yield {status: words.said("Reading."), result: ""}
                found = yield from _shown(
                    certify_steps(
                        self._scorer(metric, denoise), read_upload(path, sample).to(self._device), sigma=sigma,
                        epsilon=epsilon, samples=int(samples), fit=int(fit), stop=halt,
                    ), status, "noisy copy",
                )  # fmt: skip
            except (ResoluteError, ValueError) as error:
                yield {status: words.refused(error)}
                return
            if found is None:
                yield {status: words.said("Stopped.")}
                return
            yield {status: words.said("Done."), result: words.certified(found)}

        go.click(
            run, [file, sample, metric, denoise, sigma, epsilon, samples, fit], [status, result],
            show_progress="hidden", concurrency_id="work", api_visibility="private",
        )  # fmt: skip
        stop.click(self._stop, queue=False, api_visibility="private")

    def _image_choice(self, name: str) -> tuple[Any, Any]:
        # A file, not an image: it is decoded by our own reader after a look at its size, and by nothing before.
        label = f"Image: PNG, JPEG, WebP, AVIF, TIFF or BMP, up to {MAX_BYTES // 1_000_000} MB"
        file = gr.File(label=label, file_types=list(SUFFIXES), type="filepath", height=140, elem_id=f"{name}-file")
        sample = gr.Dropdown(list(SAMPLE_NAMES), value="coffee", label="or a sample photograph")
        return file, sample

    def _begin(self, request: gr.Request) -> threading.Event:
        halt = threading.Event()
        self._stops[str(request.session_hash)] = halt
        return halt

    def _stop(self, request: gr.Request) -> None:
        """End what this visitor is waiting for, also when the page is closed."""
        halt = self._stops.pop(str(request.session_hash), None)
        if halt is not None:
            halt.set()

    def _load(self, name: str) -> Restorer:
        return load_defended(name).to(self._device)

    def _scorer(self, metric: str, denoise: bool) -> Scorer:
        scorer = load_scorer(metric)
        return (behind(scorer, DENOISER) if denoise else scorer).to(self._device)

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
                ssr_mode=False, run_history=False, app_kwargs={"middleware": [guard]}, theme=_theme(),
                state_session_capacity=SESSIONS,
            )  # fmt: skip
        except OSError:
            raise ConfigError(f"port {port} is taken; choose another one with --port") from None
        return str(address)

    def close(self) -> None:
        """Stop serving, and delete what was uploaded."""
        for halt in self._stops.values():
            halt.set()
        self.blocks.close(verbose=False)
        self._temporary.cleanup()


def _shown(job: Generator[Any, None, Any], status: Any, what: str) -> Generator[Update, None, Any]:
    """Show every step of a job in the status line, and return its result."""
    while True:
        try:
            step = next(job)
        except StopIteration as end:
            return end.value
        yield {status: words.progress(step, what)}


def _picture(label: str) -> Any:
    return gr.Image(label=label, format="png", interactive=False, height=260, buttons=BUTTONS)


def _change(before: Tensor, after: Tensor, gain: float) -> np.ndarray:
    return to_uint8(((after - before).abs() * gain).clamp(0, 1))


def _theme() -> Any:
    # The usual one takes its fonts from the network.
    plain = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    return Default(font=plain, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"])


def model_names(models: Sequence[Path | str]) -> list[str]:
    """Return models as the page lists them: files by their full path."""
    return [str(Path(model).resolve()) if Path(model).is_file() else str(model) for model in models]
