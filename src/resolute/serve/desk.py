"""What the tabs of the local page share: the image and the model, one job at a time for each visitor, and its end."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from resolute.errors import ConfigError, ResoluteError
from resolute.folders import SUFFIXES
from resolute.images import SAMPLE_NAMES
from resolute.models.base import Restorer
from resolute.runtime import give_back
from resolute.serve import words
from resolute.serve.jobs import MAX_BYTES
from resolute.serve.stream import Step

try:
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from gradio.themes import Default
except ImportError:
    raise ConfigError("this page needs gradio; install it with: pip install 'resolute[demo]'") from None

SHRINK, AS_IT_IS = "a photograph: shrink it first, then compare with it", "a small image to be enlarged as it is"
# Without the one that shares pictures with a site.
BUTTONS: Any = ["download", "fullscreen"]

Update = dict[Any, Any]
Result = TypeVar("Result")


@final
@dataclasses.dataclass(frozen=True)
class Desk:
    """What the tabs share.

    Attributes:
        file, sample, kind, model, side: components of the image, and of the model that it goes through.
        device: a torch device.
        folder: where jobs may write; each gets a folder of its own in it, which is deleted when the job ends.
        restorer: loads a model by its name.
        stops: set by whoever does not want to wait, by the visitor.
    """

    file: Any
    sample: Any
    kind: Any
    model: Any
    side: Any
    device: str
    folder: Path
    restorer: Callable[[str], Restorer]
    stops: dict[str, threading.Event] = dataclasses.field(default_factory=dict[str, threading.Event])

    @staticmethod
    def of(models: Sequence[str], device: str, folder: Path, restorer: Callable[[str], Restorer]) -> Desk:
        """Make the components above the tabs."""
        # A file, not an image: it is decoded by our own reader after a look at its size, and by nothing before.
        label = f"Image, up to {MAX_BYTES // 1_000_000} MB"
        with gr.Row():
            with gr.Column(min_width=280):
                file = gr.File(
                    label=label, file_types=list(SUFFIXES), type="filepath", height=140, elem_id="image-file"
                )
                sample = gr.Dropdown(list(SAMPLE_NAMES), value="coffee", label="or a sample photograph")
            with gr.Column(min_width=280):
                kind = gr.Radio([SHRINK, AS_IT_IS], value=SHRINK, label="The image is")
                model = gr.Dropdown(list(models), value=models[0], label="Model", elem_id="model")
                side = gr.Slider(
                    16, 256, 96, step=8, label="Use the middle, pixels a side of the input", elem_id="image-side"
                )
        return Desk(file, sample, kind, model, side, device, folder, restorer)

    def buttons(self, name: str, verb: str) -> tuple[Any, Any]:
        """Make the buttons that begin and end a job."""
        with gr.Row():
            go = gr.Button(verb, variant="primary", elem_id=f"{name}-go")
            stop = gr.Button("Stop", elem_id=f"{name}-stop")
        return go, stop

    def wire(
        self, buttons: tuple[Any, Any], run: Callable[..., Generator[Update]], inputs: Sequence[Any],
        status: Any, outputs: Sequence[Any],
    ) -> None:  # fmt: skip
        """Let the buttons begin and end a job; one is computed at a time, whoever asks."""
        go, stop = buttons
        # What is shown on the status line is the place in the queue, while another job is at work.
        go.click(
            run, list(inputs), [status, *outputs], show_progress="minimal", show_progress_on=status,
            concurrency_id="work", api_visibility="private",
        )  # fmt: skip
        stop.click(self.stop, queue=False, api_visibility="private")

    def attend(
        self,
        request: gr.Request,
        status: Any,
        blank: Update,
        job: Callable[[threading.Event, Path], Generator[Step, None, Result | None]],
        shown: Callable[[Result], Update],
    ) -> Generator[Update]:
        """Do a job for a visitor: show how far it is, what came out or why not, and leave nothing behind.

        Args:
            request: of the visitor.
            status: where it says how far it is.
            blank: what the results of an earlier job are replaced by.
            job: called with what ends it, and a folder of its own.
            shown: what is to be shown of the result.
        """
        halt = threading.Event()
        self.stops[str(request.session_hash)] = halt
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
                yield {status: words.said("Reading."), **blank}
                found = yield from _told(job(halt, Path(folder)), status)
                if found is None:
                    yield {status: words.said("Stopped.")}
                else:
                    # What is handed over is copied before this goes on.
                    yield {status: words.said("Done."), **shown(found)}
        except (ResoluteError, FloatingPointError, ValueError) as error:
            yield {status: words.refused(error)}
        finally:
            # Every job has a thread of its own, and the memory of each would be kept for it alone.
            give_back()

    def stop(self, request: gr.Request) -> None:
        """End what a visitor is waiting for, also when the page is closed."""
        halt = self.stops.pop(str(request.session_hash), None)
        if halt is not None:
            halt.set()


def _told(job: Generator[Step, None, Result | None], status: Any) -> Generator[Update, None, Result | None]:
    """Show every step of a job in the status line, and return its result."""
    while True:
        try:
            step = next(job)
        except StopIteration as end:
            return end.value
        yield {status: words.progress(step)}


def theme() -> Any:
    """Return how the page looks: plain, with the fonts of the machine."""
    # The usual one takes its fonts from the network.
    plain = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    return Default(font=plain, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"])
