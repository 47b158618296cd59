"""Make docs/restoration.md and its picture: certified restoration beside attacks on the networks without noise.

    resolute study docs/studies/certified-restoration.toml --out runs/certified-restoration
    python docs/make_restoration.py runs/certified-restoration [FOLDER MODEL ...]

A network of others, MODEL, is added by the same study with ``--model MODEL+confine=0.05 --out FOLDER``.

The attacks are made here, in a minute: radii below a level of 255 have no place in studies of 8-bit images. It needs
Chromium, as the tests of the pages do.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from drawing import draw
from make_smoothed import GAIN, PRICE, left_by_pgd, published

from resolute.certificates import certify_restoration
from resolute.certificates.restored import psnr_of
from resolute.chart import Figure, axis, curve, layout_of, look_of, roomy
from resolute.defences import load_defended
from resolute.engine.store import Store
from resolute.files import write_text
from resolute.measure.fidelity import psnr_rgb
from resolute.resize import upscaling_norm
from resolute.studies.kinds import read_study
from resolute.studies.record import grouped
from resolute.studies.restoration import Restoration
from resolute.studies.restored import RestorationRecord
from resolute.studies.survival import consistency
from resolute.table import Column, Table, row

DOCS = Path(__file__).parent
CONFINED = "+confine=0.05"
# Of the attacks on networks without noise.
RADII, STEPS = (0.01, 0.05), 20
# Whose clean PSNR and consistency under noise are told, of so many copies.
PRICED = ("bicubic", "edsr-s", "edsr-xs", "edsr-xs-noise", "edsr-s+denoise=denoiser-mse-012")
SIGMAS, COPIES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1), 200

Certified = Sequence[RestorationRecord]


def main() -> None:
    """Attack, and write the page and the picture."""
    folders, others = [sys.argv[1], *sys.argv[2::2]], sys.argv[3::2]
    records = [record for folder in folders for record in Store(Path(folder)).read()]
    certified = [record for record in records if isinstance(record, RestorationRecord)]
    study = read_study(DOCS / "studies" / "certified-restoration.toml")
    assert isinstance(study, Restoration)
    write_text(DOCS / "restoration.md", page(certified, attacked(study, others), prices(study)))
    draw([over_radius(certified), trade(certified)], "restoration.webp")


def attacked(study: Restoration, others: Sequence[str] = ()) -> dict[tuple[str, float], float]:
    """Return the mean SR-PSNR that l2-PGD leaves of each network without noise, by its name and the radius."""
    subjects = study.subjects()
    found: dict[tuple[str, float], float] = {}
    for address in (*study.models, *others):
        model = load_defended(plain(address), study.scale)
        assert model.card is not None
        name = model.card.name
        for epsilon in RADII:
            found[name, epsilon] = mean([left_by_pgd(model, one.low, epsilon, STEPS) for one in subjects])
            print(f"{name}, {epsilon:g}: {found[name, epsilon]:.2f} dB", flush=True)
    return found


def prices(study: Restoration) -> Table:
    """Return what smoothing itself costs in clean PSNR and in consistency with the input, for each noise."""
    columns = [
        Column("network"), Column("figure"), Column("without noise", "dB"),
        *(Column(f"\u03c3 = {sigma:g}", "dB") for sigma in SIGMAS),
    ]  # fmt: skip
    rows = []
    for name in PRICED:
        model = load_defended(name, study.scale)
        clean: list[list[float]] = []
        kept: list[list[float]] = []
        for subject in study.subjects():
            with torch.no_grad():
                outputs = [model(subject.low).clamp(0, 1)]
            outputs += [
                certify_restoration(model, subject.low[0], sigma, sigma / 10, COPIES, seed=0).mean[None]
                for sigma in SIGMAS
            ]
            assert subject.truth is not None
            clean.append([float(psnr_rgb(output, subject.truth)) for output in outputs])
            kept.append([consistency(output, subject.low) or math.inf for output in outputs])
        rows += [
            row(name, "clean PSNR", *map(statistics.fmean, zip(*clean, strict=True))),
            row("", "consistency", *map(statistics.fmean, zip(*kept, strict=True))),
        ]
        print(f"{name}: priced", flush=True)
    caption = (
        f"What smoothing itself costs: the mean output over {COPIES} noisy copies, against the truth and, shrunk, "
        "against the input; means over the same photographs."
    )
    return Table("", columns, rows, caption=caption)


def mean(values: Sequence[float | None]) -> float:
    """Return the mean in dB, minus infinity where a value is not proven."""
    return statistics.fmean(-math.inf if value is None else value for value in values)


def plain(model: str) -> str:
    """Return the name of a network without its confinement."""
    return model.removesuffix(CONFINED)


def page(certified: Certified, left: dict[tuple[str, float], float], priced: Table) -> str:
    """Return the page."""
    first = certified[0]
    images, width = len({record.image for record in certified}), first.width
    words, networks = published()
    parts = [
        "# Certified restoration, measured",
        "What is certified, and why, is on [a page of its own](certified-restoration.md). Here is what came out on "
        f"{images} sample photographs, their middle {4 * width} x {4 * width} pixels shrunk to {width} x {width}: "
        "networks for \u00d74, each kept within a root mean square of 0.05 of bicubic interpolation, "
        f"{first.copies:,} noisy copies, \u03b1 = {first.alpha:g}, seed {first.seed}, PSNR over RGB. Made by "
        "`python docs/make_restoration.py` from [`certified-restoration.toml`](studies/certified-restoration.toml).",
        *verdict(certified, left),
        "![Certified SR-PSNR over the radius, and against clean PSNR](images/restoration.webp)",
        "Left: certified SR-PSNR of the mean output at \u03c3 = 0.1 (full) and 0.03 (dotted) over the radius. Right: "
        "the same at a radius of 0.01 against clean PSNR of that output.",
        certified_table(certified).markdown(),
        goal_table(certified, left).markdown(),
        words,
        networks.markdown(),
        priced.markdown(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def verdict(certified: Certified, left: dict[tuple[str, float], float]) -> list[str]:
    """Say what is certified, by how much the mean is bounded better than pixels, and whether the goal was met."""
    gains = [
        one.certified_mean - one.certified_median
        for one in certified
        if one.certified_mean is not None and one.certified_median is not None
    ]
    better = sum(gain > 0 for gain in gains)
    asked = goals(certified, left)
    met = [one for one in asked if one[-1]]
    # Where not even an infinite number of samples would do.
    forbidden = [f"{model} at {epsilon:g}" for model, epsilon, kept, _, possible, *_ in asked if possible < kept + GAIN]
    short = max((one[2] + GAIN - one[5] for one in asked), default=0.0)
    told = (
        "It is met for " + ", ".join(f"{model} at {epsilon:g}" for model, epsilon, *_ in met) + "."
        if met
        else "It is met nowhere."
    )
    return [
        f"The covariance bound of the mean output is above that of the pixels in {better} of {len(gains)} cells, by "
        f"{statistics.median(gains):.1f} dB in the median and up to {max(gains):.1f} dB.",
        f"The goal: certified SR-PSNR {GAIN:g} dB above what l2-PGD leaves of the same network without noise, for at "
        f"most {PRICE:g} dB of clean PSNR. {told} It is missed by up to {short:.1f} dB. No number of samples could "
        f"meet it for {', '.join(forbidden)}; for the others these samples are too few.",
    ]


def certified_table(certified: Certified) -> Table:
    """Return what is certified, means over images."""
    columns = [
        Column("network"), Column("sigma", digits=2), Column("radius", "l2", digits=4),
        Column("clean PSNR without noise", "dB"), Column("clean PSNR of the median", "dB"),
        Column("of the mean", "dB"), Column("certified SR-PSNR of the median", "dB", digits=1),
        Column("of the mean", "dB", digits=1), Column("of the centre", "dB", digits=1),
        Column("certified against truth, of the mean", "dB", digits=1),
    ]  # fmt: skip
    rows = [
        row(
            plain(model), sigma, epsilon, mean([one.plain_psnr for one in own]),
            mean([one.median_psnr for one in own]), mean([one.mean_psnr for one in own]),
            mean([one.certified_median for one in own]), mean([one.certified_mean for one in own]),
            mean([one.certified_centre for one in own]), mean([one.certified_truth_mean for one in own]),
        )
        for (model, sigma, epsilon), own in grouped(certified, lambda r: (r.model, r.sigma, r.epsilon)).items()
    ]  # fmt: skip
    return Table("", columns, rows, caption="Means over images of what no attack within the radius can go below.")


def goals(
    certified: Certified, left: dict[tuple[str, float], float]
) -> list[tuple[str, float, float, float, float, float, float, bool]]:
    """Return for each network and radius what attacks leave, what is possible, what is certified, and if it is enough.

    What is possible: an upscaler whose output brightens as its input does moves by the gain of bicubic interpolation at
    least, so its covariance has an eigenvalue of the gain times sigma, squared.
    """
    found = []
    shown = [record for record in certified if record.epsilon in RADII]
    for (model, epsilon), own in grouped(shown, lambda record: (record.model, record.epsilon)).items():
        side = own[0].width
        gain = upscaling_norm((side, side), 4) / math.sqrt(3 * 16 * side * side)
        settings = grouped(own, lambda record: record.sigma)
        means = {sigma: mean([one.certified_mean for one in images]) for sigma, images in settings.items()}
        cheap = [
            sigma
            for sigma, images in settings.items()
            if mean([one.plain_psnr for one in images]) - mean([one.mean_psnr for one in images]) <= PRICE
        ]
        possible = max(
            (psnr_of(gain * s * math.sqrt(math.expm1((epsilon / s) ** 2))) for s in cheap), default=-math.inf
        )
        paid = max((means[sigma] for sigma in cheap), default=-math.inf)
        kept = left[plain(model), epsilon]
        enough = paid >= kept + GAIN
        found.append(
            (plain(model), epsilon, kept, psnr_of(epsilon * gain), possible, paid, max(means.values()), enough)
        )
    return found


def goal_table(certified: Certified, left: dict[tuple[str, float], float]) -> Table:
    """Return attacks and certificates side by side: an empirical figure, and what is proven."""
    columns = [
        Column("network"), Column("radius", "l2", digits=4),
        Column("empirical: what l2-PGD leaves without noise", "dB", digits=1),
        Column("most that any upscaler can keep which brightens as its input does", "dB", digits=1),
        Column("most that its bound can say with any number of samples, for that price", "dB", digits=1),
        Column(f"certified, for up to {PRICE:g} dB of clean PSNR", "dB", digits=1),
        Column("certified, for any price", "dB", digits=1), Column("goal met"),
    ]  # fmt: skip
    return Table("", columns, [row(*one) for one in goals(certified, left)])


def over_radius(certified: Certified) -> Figure:
    """Return certified SR-PSNR of the mean output over the radius."""
    models = sorted({plain(record.model) for record in certified})
    data: list[Figure] = []
    for (model, sigma), own in grouped(certified, lambda record: (plain(record.model), record.sigma)).items():
        radii = grouped(sorted(own, key=lambda record: record.epsilon), lambda record: record.epsilon)
        colour, marker = look_of(model, models)
        y = [mean([one.certified_mean for one in found]) for found in radii.values()]
        line = curve(model, list(radii), y, mode="lines+markers")
        line |= {"line": {"color": colour, "dash": "solid" if sigma > 0.05 else "dot"}, "showlegend": sigma > 0.05}
        data.append(line | {"marker": {"symbol": marker, "color": colour, "size": 8}})
    layout = layout_of(axis("l2 radius", type="log"), axis("certified SR-PSNR, dB"))
    return {"data": data, "layout": {**roomy(layout, len(models)), "width": 620, "paper_bgcolor": "white"}}


def trade(certified: Certified) -> Figure:
    """Return certified SR-PSNR at one radius against clean PSNR, a point for each sigma."""
    shown = [record for record in certified if record.epsilon == 0.01]
    models = sorted({plain(record.model) for record in shown})
    data: list[Figure] = []
    for model, own in grouped(shown, lambda record: plain(record.model)).items():
        settings = grouped(sorted(own, key=lambda record: record.sigma), lambda record: record.sigma)
        colour, marker = look_of(model, models)
        x = [mean([one.mean_psnr for one in found]) for found in settings.values()]
        y = [mean([one.certified_mean for one in found]) for found in settings.values()]
        line = curve(model, x, y, mode="lines+markers+text")
        line |= {"text": [f"\u03c3 {sigma:g}" for sigma in settings], "textposition": "top center"}
        data.append(line | {"line": {"color": colour}, "marker": {"symbol": marker, "color": colour, "size": 8}})
    layout = layout_of(axis("clean PSNR of the mean output, dB"), axis("certified SR-PSNR at 0.01, dB"))
    return {"data": data, "layout": {**roomy(layout, len(models)), "width": 620, "paper_bgcolor": "white"}}


if __name__ == "__main__":
    main()
