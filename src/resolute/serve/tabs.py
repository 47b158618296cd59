"""The tabs of the local page: attack, ask what is invented, harden, certify."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from resolute.errors import ConfigError
from resolute.images import to_uint8
from resolute.models.registry import built_in_models
from resolute.models.scorers import built_in_scorers, load_scorer
from resolute.serve import words
from resolute.serve.asking import Asked, faithful_steps
from resolute.serve.desk import BUTTONS, SHRINK, Desk, Update, gr
from resolute.serve.hardening import MINUTES, SIDE, Hardened, harden_steps
from resolute.serve.jobs import Trial, attack_steps, certify_steps, read_upload
from resolute.serve.stream import Step
from resolute.studies.certification import DENOISER
from resolute.studies.score_study import behind

TIMES, SIGMA = "\u00d7", "\u03c3"
ATTACKS = {"I-FGSM": "ifgsm", "MI-FGSM": "mifgsm", "PGD": "pgd", "APGD": "apgd", "FDA": "fda", "FGSM, one step": "fgsm"}


def attack_tab(desk: Desk) -> None:
    """Attack the model, and watch."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            attack = gr.Dropdown(list(ATTACKS), value="I-FGSM", label="Attack", elem_id="attack-kind")
            level = gr.Slider(1, 32, 4, step=1, label="Budget, in levels of 255", elem_id="attack-level")
            steps = gr.Slider(1, 100, 20, step=1, label="Steps", elem_id="attack-steps")
            buttons = desk.buttons("attack", "Attack")
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(words.said("Choose an image and press Attack."), elem_id="attack-status")
            figures = gr.HTML(elem_id="attack-figures")
            slider = _divide("Output: clean, attacked", "attack")
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
            gr.Image(_change(*pair, gain), label=f"Difference of the {what}, {TIMES}{gain:g}")
            for what, pair in zip(("outputs", "inputs"), pairs, strict=True)
        ]

    def run(
        path: str | None, sample: str, kind: str, model: str, attack: str, level: float, steps: float, side: float,
        gain: float, request: gr.Request,
    ) -> Generator[Update]:  # fmt: skip
        def job(stop: threading.Event, _: Path) -> Generator[Step, None, Trial | None]:
            return attack_steps(
                desk.restorer(model), read_upload(path, sample), kind=ATTACKS[attack], level=level, steps=int(steps),
                side=int(side), photograph=kind == SHRINK, stop=stop,
            )  # fmt: skip

        def shown(found: Trial) -> Update:
            return {
                figures: words.figures(found), trial: found,
                slider: (to_uint8(found.clean_output), to_uint8(found.attacked_output)),
                clean: to_uint8(found.clean), attacked: to_uint8(found.attacked),
                **dict(zip(changes, differences(found, gain), strict=True)),
            }  # fmt: skip

        yield from desk.attend(request, status, {figures: ""}, job, shown)

    inputs = [desk.file, desk.sample, desk.kind, desk.model, attack, level, steps, desk.side, gain]
    desk.wire(buttons, run, inputs, status, [figures, slider, *changes, clean, attacked, trial])
    gain.change(differences, [trial, gain], changes, queue=False, api_visibility="private")


def faithful_tab(desk: Desk) -> None:
    """Ask what the model has invented."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            gr.Markdown(
                "What of the output the input bears out, how far noise, JPEG and an attack on the input move each "
                "pixel, and, for models with a calibration, which pixels to trust."
            )
            buttons = desk.buttons("faithful", "Did it invent this?")
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(words.said("Choose an image and press the button."), elem_id="faithful-status")
            result = gr.HTML(elem_id="faithful-result")
            slider = _divide("Output", "faithful")
            pictures = _gallery("faithful")

    def run(
        path: str | None, sample: str, kind: str, model: str, side: float, request: gr.Request
    ) -> Generator[Update]:
        def job(stop: threading.Event, folder: Path) -> Generator[Step, None, Asked | None]:
            return faithful_steps(
                model, desk.restorer(model), read_upload(path, sample), folder, side=int(side),
                photograph=kind == SHRINK, device=desk.device, stop=stop,
            )  # fmt: skip

        def shown(found: Asked) -> Update:
            left, right = (found.case.views[place] for place in found.case.pair)
            label = f"Left: {left.label}. Right: {right.label}"
            pair = to_uint8(left.pixels), to_uint8(right.pixels)
            views = [(to_uint8(view.pixels), view.label) for view in found.case.views]
            return {
                result: words.sentences([*found.sentences, found.case.facts[-1]]), pictures: views,
                slider: gr.ImageSlider(pair, label=label),
            }  # fmt: skip

        yield from desk.attend(request, status, {result: ""}, job, shown)

    desk.wire(
        buttons, run, [desk.file, desk.sample, desk.kind, desk.model, desk.side], status, [result, slider, pictures]
    )


def harden_tab(desk: Desk) -> None:
    """Harden the model for a minute or two, and see what that was worth."""
    names = _small_models()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            gr.Markdown(
                "Adversarial fine-tuning of a built-in model on the sample photographs, and the same attack before "
                f"and after, on your photograph: on {SIDE} pixels a side of the input at most. On a hundred "
                "photographs of your own, and by a stronger judge: `resolute harden`."
            )
            model = gr.Dropdown(names, value="edsr-xs", label="Model to harden", elem_id="harden-model")
            minutes = gr.Slider(0.1, MINUTES, 1, step=0.1, label="Minutes of training", elem_id="harden-minutes")
            level = gr.Slider(1, 16, 4, step=1, label="Budget, in levels of 255")
            buttons = desk.buttons("harden", "Harden")
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(words.said("Choose a photograph and press Harden."), elem_id="harden-status")
            result = gr.HTML(elem_id="harden-result")
            slider = _divide("Under attack: before, hardened", "harden")
            pictures = _gallery("harden")
            weights = gr.DownloadButton("Weights", interactive=False, elem_id="harden-weights")

    def run(
        path: str | None, sample: str, kind: str, model: str, minutes: float, level: float, side: float,
        request: gr.Request,
    ) -> Generator[Update]:  # fmt: skip
        def job(stop: threading.Event, folder: Path) -> Generator[Step, None, Hardened | None]:
            if kind != SHRINK:
                raise ConfigError("hardening is judged against a photograph: say above that the image is one")
            if model not in names:
                raise ConfigError(f"the page hardens built-in models alone; for others: resolute harden {model}")
            return harden_steps(
                model, desk.restorer(model), read_upload(path, sample), folder, but="" if path else sample,
                minutes=minutes, level=level, side=int(side), device=desk.device, stop=stop,
            )  # fmt: skip

        def shown(found: Hardened) -> Update:
            return {
                result: words.hardened(found), slider: (to_uint8(found.before), to_uint8(found.after)),
                pictures: [(to_uint8(pixels), label) for label, pixels in found.clean],
                weights: gr.DownloadButton(f"Weights: {found.made.weights.name}", value=found.made.weights,
                                           interactive=True),
            }  # fmt: skip

        off = gr.DownloadButton("Weights", value=None, interactive=False)
        yield from desk.attend(request, status, {result: "", weights: off}, job, shown)

    inputs = [desk.file, desk.sample, desk.kind, model, minutes, level, desk.side]
    desk.wire(buttons, run, inputs, status, [result, slider, pictures, weights])


def certify_tab(desk: Desk) -> None:
    """Certify the score of the image."""
    metrics = list(built_in_scorers())
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            metric = gr.Dropdown(metrics, value=metrics[0], label="Quality metric", elem_id="certify-metric")
            denoise = gr.Checkbox(False, label="Behind the denoiser: narrower intervals, several times as long")
            sigma = gr.Slider(0.02, 0.5, 0.12, step=0.01, label=f"Noise {SIGMA}")
            epsilon = gr.Slider(0.01, 0.5, 0.05, step=0.01, label="l2 radius ε over all pixels and channels")
            samples = gr.Slider(20, 1000, 200, step=10, label="Noisy copies", elem_id="certify-samples")
            fit = gr.Slider(64, 512, 256, step=32, label="Shrink to so many pixels a side")
            buttons = desk.buttons("certify", "Certify")
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(words.said("Choose an image and press Certify."), elem_id="certify-status")
            result = gr.HTML(elem_id="certify-result")

    def run(
        path: str | None, sample: str, metric: str, denoise: bool, sigma: float, epsilon: float, samples: float,
        fit: float, request: gr.Request,
    ) -> Generator[Update]:  # fmt: skip
        def job(stop: threading.Event, _: Path) -> Generator[Step, None, Any]:
            scorer = load_scorer(metric)
            scorer = (behind(scorer, DENOISER) if denoise else scorer).to(desk.device)
            return certify_steps(
                scorer, read_upload(path, sample).to(desk.device), sigma=sigma, epsilon=epsilon, samples=int(samples),
                fit=int(fit), stop=stop,
            )  # fmt: skip

        yield from desk.attend(request, status, {result: ""}, job, lambda found: {result: words.certified(found)})

    desk.wire(buttons, run, [desk.file, desk.sample, metric, denoise, sigma, epsilon, samples, fit], status, [result])


def _small_models() -> Sequence[str]:
    return [name for name in built_in_models() if not name.startswith("denoiser-")]


def _divide(label: str, name: str) -> Any:
    return gr.ImageSlider(label=label, format="png", elem_id=f"{name}-slider", buttons=BUTTONS)


def _gallery(name: str) -> Any:
    return gr.Gallery(
        label="Pictures", show_label=False, format="png", columns=3, height="auto", object_fit="contain",
        interactive=False, elem_id=f"{name}-gallery", buttons=["download", "fullscreen"],
    )  # fmt: skip


def _picture(label: str) -> Any:
    return gr.Image(
        label=label, format="png", interactive=False, height=260, buttons=BUTTONS, elem_classes="r-pixels"
    )  # fmt: skip


def _change(before: Tensor, after: Tensor, gain: float) -> np.ndarray:
    return to_uint8(((after - before).abs() * gain).clamp(0, 1))
