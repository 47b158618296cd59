"""Make docs/gallery.md and its pictures: what the package does, on the sample photographs that scikit-image ships.

    python docs/make_gallery.py --published 'CARN-M_x234.pth#x4' SRGAN_leftthomas_x4_pt04.pth
    python docs/make_gallery.py --page                       # the page anew, from the figures that are there
    python docs/make_gallery.py --only certified             # one picture

The published networks are the official CARN-M and an SRGAN, both under the MIT licence, which are not part of this
repository; all others are. The figures are in docs/images/gallery.json, from which the page is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import IMAGES, sheet

from resolute import APGD, certify, certify_restoration, load, load_defended, load_scorer, psnr_y, run
from resolute.corruptions import CORRUPTIONS, corrupted
from resolute.images import from_uint8, read_image, sample_image, to_uint8
from resolute.models.base import Restorer, name_of
from resolute.resize import downscale
from resolute.studies.demonstration import EPSILON, GAMED, submissions
from resolute.studies.faithful import Faithful
from resolute.studies.grid_cases import heat_map
from resolute.studies.results import Case
from resolute.training.judge import Photograph, judge

PAGE, FIGURES = Path(__file__).with_name("gallery.md"), IMAGES / "gallery.json"
SIDE, SEED, STEPS = 224, 0, 30

Figures = dict[str, Any]
Rows = list[list[tuple[np.ndarray, str]]]


@dataclasses.dataclass(frozen=True)
class Shot:
    """A picture of the gallery: its title, what it shows with places for its figures, and how it is made."""

    title: str
    words: str
    make: Callable[[Sequence[str]], tuple[Figures, Rows]]


def photograph(name: str, top: int, left: int, side: int = SIDE) -> Photograph:
    """Return a crop of a sample photograph, and the same shrunk by four."""
    high = to_uint8(sample_image(name)[:, top : top + side, left : left + side])
    return Photograph(name, downscale(high, 4), high)


def attacked(model: Restorer, image: Photograph, level: float) -> tuple[Figures, list[tuple[np.ndarray, str]]]:
    """Return the figures of a model under attack, the attacked input, and the outputs for the clean one and for it."""
    found, seen = judge(model, image, {"APGD": APGD(epsilon=level / 255, steps=STEPS)}, seed=SEED)
    figures = {"clean": found.clean, "attacked": found.truth, "kept": found.kept}
    name = name_of(model)
    return figures, [
        (to_uint8(seen.attacked), "attacked input"),
        (to_uint8(seen.clean_output.clamp(0, 1)), f"{name}:\n{found.clean:.1f} dB"),
        (to_uint8(seen.output.clamp(0, 1)), f"{name},\nattacked: {found.truth:.1f} dB"),
    ]


def attacks(published: Sequence[str]) -> tuple[Figures, Rows]:
    image, rows, figures = photograph("astronaut", 20, 130), [], {}
    for address in [*published, "edsr-s"]:
        model = load(address)
        figures[name_of(model)], pictures = attacked(model, image, 4)
        rows.append([(image.high, "original"), *pictures])
    return {"networks": figures, "level": 4}, rows


def defended(_: Sequence[str]) -> tuple[Figures, Rows]:
    image, row, figures = photograph("motorcycle", 100, 100), [], {}
    for name in ("edsr-xs", "edsr-xs-entropy", "edsr-xs-adv", "bicubic"):
        figures[name], pictures = attacked(load(name), image, 8)
        row.append(pictures[2])
    return {"networks": figures, "level": 8}, [[(image.high, "original"), *row]]


def caught(_: Sequence[str]) -> tuple[Figures, Rows]:
    with tempfile.TemporaryDirectory() as folder:
        study = submissions(Path(folder))
        records = {Path(record.image).stem: record for record in run(study, Path(folder) / "audit")}
        record = records[GAMED[0]]
        image, original = (read_image(path) for path in (record.image, record.reference))
    change = (0.5 + 16 * (image - original)).clamp(0, 1)
    figures = {
        "name": GAMED[0], "metric": record.model, "before": record.reference_undefended, "after": record.undefended,
        "behind": record.defended, "p": record.p, "level": 255 * EPSILON, "photographs": record.calibrated,
        "gamed": sum(records[name].suspect for name in GAMED), "of": len(GAMED),
        "false": sum(one.suspect for name, one in records.items() if name not in GAMED),
        "honest": len(records) - len(GAMED),
    }  # fmt: skip
    return figures, [
        [
            (to_uint8(original), f"original: {record.reference_undefended:.1f}"),
            (to_uint8(image), f"submission: {record.undefended:.1f}, flagged"),
            (to_uint8(change), "the change, 16 times"),
        ]
    ]


def interval(_: Sequence[str]) -> tuple[Figures, Rows]:
    metric, row, figures = load_scorer("quality-m"), [], {}
    for name, top, left in (("astronaut", 20, 130), ("chelsea", 40, 100), ("coffee", 100, 200)):
        image = photograph(name, top, left).high
        found = certify(metric, from_uint8(image), 0.12, 0.05, 100, seed=SEED)
        figures[name] = {"score": found.score, "lower": found.lower, "upper": found.upper}
        bar = np.full((28, SIDE, 3), 255, dtype=np.uint8)
        bar[13:15] = 160
        low, middle, high = (round(value / 100 * (SIDE - 1)) for value in (found.lower, found.score, found.upper))
        bar[8:20, low : high + 1] = (120, 170, 220)
        bar[5:23, middle - 1 : middle + 2] = (20, 60, 120)
        row.append(
            (np.concatenate([image, bar]), f"{found.score:.1f}, certified in\n[{found.lower:.1f}, {found.upper:.1f}]")
        )
    return {"images": figures, "sigma": 0.12, "epsilon": 0.05, "samples": 100}, [row]


def invented(_: Sequence[str]) -> tuple[Figures, Rows]:
    shown = {
        "input": "input", "output": "output", "truth": "truth",
        "output, what is not trusted covered": "what is not trusted, covered",
        "where it is added": "added: not borne out", "contradicts the input": "contradicts the input",
        "moved by an attack": "moved by an attack of 2/255", "error": "error",
    }  # fmt: skip
    study = Faithful(
        models=("edsr-s", "bicubic"), images=("samples",), names=("motorcycle",), high_resolution=True, crop=256,
        seed=SEED,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records = run(study, folder)
        case = next(iter(study.cases(records, Path(folder))))
    assert isinstance(case, Case)
    views = {view.label: view.pixels for view in case.views}
    pictures = [(to_uint8(views[label]), caption) for label, caption in shown.items()]
    record = next(record for record in records if record.model == "edsr-s")
    names = ("added", "contradicted", "trusted", "wrong_trusted", "wrong_others", "bound", "rate", "calibrated")
    return {name: getattr(record, name) for name in names}, [pictures[:4], pictures[4:]]


def certified(_: Sequence[str]) -> tuple[Figures, Rows]:
    image = photograph("astronaut", 60, 170, 128)
    made = certify_restoration(
        load_defended("edsr-s+confine=0.05"), from_uint8(image.low), sigma=0.03, epsilon=0.01, n=500, seed=SEED
    )
    moves = made.moves().amax(dim=0) * 255
    figures = {
        "sigma": 0.03, "epsilon": 0.01, "samples": 500, "alpha": made.smoothing.alpha,
        "mean": float(moves.mean()), "largest": float(moves.max()), "psnr": made.sr_psnr(),
        "psnr_mean": made.sr_psnr_mean(), "clean": psnr_of(made.output, image),
    }  # fmt: skip
    bounds = [(to_uint8(made.lower), "no pixel is darker"), (to_uint8(made.upper), "no pixel is brighter")]
    moved = (to_uint8(heat_map(moves.float(), 0, 32)), "how far one can move:\ndark 0, bright 32 levels")
    return figures, [[(to_uint8(made.output), "certified output"), *bounds, moved]]


def survived(_: Sequence[str]) -> tuple[Figures, Rows]:
    image, models = photograph("chelsea", 40, 100), [load("edsr-s"), load("bicubic")]
    low, inputs, outputs, figures = from_uint8(image.low), [], [], {}
    damage = {"clean": low} | {kind: corrupted(low, kind, 4, seed=SEED) for kind in ("jpeg", "webp", "noise", "blur")}
    for kind, damaged in damage.items():
        with torch.no_grad():
            made = [model(damaged[None])[0].clamp(0, 1) for model in models]
        psnr = [psnr_of(one, image) for one in made]
        figures[kind] = dict(zip(map(name_of, models), psnr, strict=True))
        inputs.append((to_uint8(damaged), CORRUPTIONS[kind].words(4) if kind in CORRUPTIONS else "clean input"))
        outputs.append((to_uint8(made[0]), f"{psnr[0]:.1f} dB; bicubic {psnr[1]:.1f}"))
    return {"kinds": figures}, [inputs, outputs]


def psnr_of(output: torch.Tensor, image: Photograph) -> float:
    """Return the PSNR of an output against the original, on Y, border shaved, in dB."""
    return float(psnr_y(from_uint8(to_uint8(output))[None], from_uint8(image.high)[None], border=4))


SHOTS = {
    "attacks": Shot(
        "What an attack does",
        """
        A face of 56 \u00d7 56 pixels, upscaled \u00d74 by published networks and by a small built-in one. The input
        differs by at most {level}/255 a sample, found by APGD in 30 steps, one start, seed 0. PSNR on Y against the
        original, clean and attacked, and SR-PSNR: {each}. The small network was trained for minutes and breaks less,
        by weakness; bigger ones paint what is not there. [Attack your
        own](howto/ship.md#2-attack-it-on-your-photographs), [how fragile 90 published networks are](leaderboard.md).
        """,
        attacks,
    ),
    "defended": Shot(
        "What a defence does",
        """
        All outputs for inputs attacked by {level}/255 (APGD, 30 steps, one start, seed 0; a motorcycle, 56 \u00d7 56
        pixels): `edsr-xs` as trained, with the paper's entropy regulariser, with adversarial training, and bicubic
        interpolation. PSNR on Y against the original, clean and attacked, and SR-PSNR: {each}. One image shows an
        effect and proves none: [means over images](results.md), [how to harden](howto/ship.md#9-harden-it).
        """,
        defended,
    ),
    "caught": Shot(
        "A score that was gamed, and caught",
        """
        The metric `{metric}` gives the photograph {name} {before:.1f}; after a change of {level:g}/255 (I-FGSM, 10
        steps, seed 0) it gives {after:.1f}, and behind JPEG and another size {behind:.1f}. `resolute audit` flags it:
        its gap has a conformal p-value of {p:.4f} among {photographs} honest photographs. On this page it flagged
        {gamed} of {of} gamed ones and {false} of {honest} honest ones. [Was this score gamed?](audit.md)
        """,
        caught,
    ),
    "interval": Shot(
        "A certified interval",
        """
        Median scores of `quality-m` under Gaussian noise of \u03c3 = {sigma}, and the interval that no change of l2
        norm up to {epsilon} can move the true median out of, with confidence 99.9 %, on a scale from 0 to 100: {each}.
        {samples} noisy copies, seed 0. Such a change is far smaller than that of the attacks above: the figures share
        no scale. [How to certify scores](howto/benchmark.md), [what is promised](certificates.md).
        """,
        interval,
    ),
    "invented": Shot(
        "What a network invents",
        """
        `edsr-s` on the middle of the photograph motorcycle, \u00d74. {added:.1f} levels of 255 (root mean square) are
        detail that the input can neither confirm nor refute, {contradicted:.1f} contradict it. Violet covers what is
        not to be trusted to within {bound:g} levels: {trusted:.0f} % of the pixels are trusted, by {calibrated}
        photographs at a rate of {rate:g}; here {wrong_trusted:.1f} % of them are off by more, and {wrong_others:.1f} %
        of the others. Maps go from 0, dark, to {bound:g} levels, bright; the attack is I-FGSM of 2/255 in 10 steps,
        seed 0. [Did it invent this?](faithful.md)
        """,
        invented,
    ),
    "certified": Shot(
        "Certified restoration",
        """
        `edsr-s+confine=0.05` on 32 \u00d7 32 pixels, smoothed with noise of \u03c3 = {sigma}: whatever change of l2
        norm up to {epsilon} an attacker makes of the input, no pixel of the true median output leaves the two images
        in the middle, with confidence 99.9 % ({samples} noisy copies, seed 0). On average a pixel can move by
        {mean:.1f} levels of 255, at most by {largest:.1f}; the certified SR-PSNR is {psnr:.1f} dB by the pixels and
        {psnr_mean:.1f} dB for the mean output, the clean PSNR {clean:.1f} dB. [What is certified of an upscaled
        image](certified-restoration.md).
        """,
        certified,
    ),
    "survived": Shot(
        "What compression and noise leave",
        """
        Nobody's attack: `edsr-s` on inputs of 56 \u00d7 56 pixels damaged at severity 4 of 5, seed 0, and the PSNR of
        its outputs on Y against the original: {each}. [See what yours survives](howto/ship.md#5-see-what-it-survives).
        """,
        survived,
    ),
}  # fmt: skip

HEAD = """\
# Gallery

Real results, pictures first. All photographs are samples of scikit-image. `python docs/make_gallery.py` made the
pictures and this page; [their figures](images/gallery.json) lie beside them. A picture shows one image: what holds on
many is on the page that its caption links to.
"""

HARDENED = """
## A published network before and after `resolute harden`

![Text, a face and a rocket: original; RLFN before, clean and attacked; hardened, clean and attacked](images/eye.webp)

RLFN, a winner of a challenge, under the judge's attacks of 4/255, seed 0, before and after 1,800 steps of
`resolute harden`. Figures, network and the command of this picture:
[hardening](harden.md#with-two-patches-of-five-attacked).
"""


def each_of(figures: Figures) -> str:
    """Return the figures of several networks, images or kinds of damage in words."""
    if "networks" in figures:
        return "; ".join(
            f"{name} {one['clean']:.1f}, {one['attacked']:.1f} and {one['kept']:.1f} dB"
            for name, one in figures["networks"].items()
        )
    if "images" in figures:
        return "; ".join(
            f"{name} {one['score']:.1f} in [{one['lower']:.1f}, {one['upper']:.1f}]"
            for name, one in figures["images"].items()
        )
    return "; ".join(
        f"{CORRUPTIONS[kind].words(4) if kind in CORRUPTIONS else 'undamaged'}: {one['edsr-s']:.1f} dB, bicubic "
        f"interpolation {one['bicubic']:.1f}"
        for kind, one in figures.get("kinds", {}).items()
    )


def page_of(found: Figures) -> str:
    """Return the page, from the figures of its pictures."""
    text = HEAD
    for name, shot in SHOTS.items():
        words = " ".join(shot.words.split()).format(**found[name], each=each_of(found[name]))
        words = textwrap.fill(words, 118, break_long_words=False, break_on_hyphens=False)
        text += f"\n## {shot.title}\n\n![{shot.title}](images/gallery-{name}.webp)\n\n{words}\n"
        if name == "defended":
            text += HARDENED
    return text


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", nargs="*", default=[], help="addresses of published networks to attack")
    parser.add_argument("--only", nargs="*", choices=list(SHOTS), default=list(SHOTS))
    parser.add_argument("--page", action="store_true", help="write the page from the figures that are there")
    given = parser.parse_args()
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    for name in [] if given.page else given.only:
        figures, rows = SHOTS[name].make(given.published)
        sheet(rows, IMAGES / f"gallery-{name}.webp", side=SIDE)
        found[name] = rounded(figures)
        FIGURES.write_text(
            json.dumps({key: found[key] for key in SHOTS if key in found}, indent=1) + "\n", encoding="utf-8"
        )
        print(name, found[name])
    if found.keys() == SHOTS.keys():
        PAGE.write_text(page_of(found), encoding="utf-8")


if __name__ == "__main__":
    main()
