"""What certified upscaled images come to: sentences, tables, and charts of certified PSNR."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from resolute.chart import Chart, Figure, axis, curve, layout_of, look_of
from resolute.figures import figure
from resolute.studies.record import grouped
from resolute.studies.restored import RestorationRecord, StatisticBounds
from resolute.studies.results import UNFINISHED, Results
from resolute.table import Column, Table, row

Records = Sequence[RestorationRecord]


def results_of(records: Records) -> Results:
    """Return what records come to."""
    if not records:
        return Results([UNFINISHED], [])
    tables = [_settings_table(records), _images_table(records)]
    bounded = _statistics_table(records)
    return Results(_summary(records), [*tables, *bounded], [*_radii_chart(records), *_trade_chart(records)])


def case_facts(record: RestorationRecord) -> list[str]:
    """Return what is told of one record below its pictures."""
    told = [record.words, _moved(record)]
    told += [f"{one.name}: {_between(one)}." for one in record.statistics if one.count == 1]
    return told


def _moved(record: RestorationRecord) -> str:
    return (
        f"Of the median output no value can move by more than {255 * record.largest_move:.1f} levels of 255, and in "
        f"the mean over all values by {255 * record.mean_move:.1f}."
    )


def _between(one: StatisticBounds) -> str:
    low, high = ("unbounded" if end is None else f"{end:.4g}" for end in (one.lower, one.upper))
    return f"{figure(one.value, 4)} provably stays in [{low}, {high}]"


def _summary(records: Records) -> list[str]:
    """Say for each model at which noise, at the largest radius, the most is certified."""
    radius = max(record.epsilon for record in records)
    told = []
    for model, own in grouped(records, lambda record: record.model).items():
        settings = grouped([one for one in own if one.epsilon == radius], _sampled)
        if not settings:
            continue
        best = max(settings.values(), key=lambda found: min(_certified(one) for one in found))
        low = min(_certified(one) for one in best)
        lost = _lost(best)
        paid = "" if lost is None else f", for {figure(lost, 2)} dB of clean PSNR"
        # The best of three outputs of each setting, and of all settings.
        confidence = max(0.0, 100 * (1 - 3 * sum(found[0].alpha for found in settings.values())))
        images = f"any of {len(best)} images" if len(best) > 1 else "the image"
        told.append(
            f"{model}: no perturbation of l2 norm up to {radius:g} leaves less than {low:.1f} dB of SR-PSNR on "
            f"{images}, by noise of sigma {best[0].sigma:g}{paid}; with confidence {confidence:.6g} % an image."
            if low > 0
            else f"{model}: nothing is proven at an l2 norm of {radius:g}."
        )
    return told


def _sampled(record: RestorationRecord) -> tuple[float, int, float, str, int | None]:
    """Return what records of one folder may differ in besides model, image and radius: its runs add up."""
    return record.sigma, record.copies, record.alpha, record.noise, None if record.drawn else record.seed


def _certified(record: RestorationRecord) -> float:
    return record.certified[1] if record.certified else 0.0


def _lost(records: Records) -> float | None:
    """Return the mean clean PSNR that the best bounded output has less than the model without noise."""
    found = [
        one.plain_psnr - one.kept_psnr
        for one in records
        if one.plain_psnr is not None and one.kept_psnr is not None
    ]  # fmt: skip
    return statistics.fmean(found) if found else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _settings_table(records: Records) -> Table:
    columns = [
        Column("model"), Column("radius", "l2", digits=4),
        Column("certified SR-PSNR", "dB", "of the best bounded output of each image", better="higher", key=True),
        Column("clean PSNR", "dB", "of the model without noise", better="higher"),
        Column("lost", "dB", "by the best bounded output, on the clean image", better="lower"),
        Column("sigma", digits=3),
        Column("by median", "dB", "pixels' bounds", better="higher"),
        Column("by mean", "dB", "covariance under noise", better="higher"),
        Column("by centre", "dB", "centre smoothing", better="higher"),
        Column("pixel moves at most", "of 255", "the largest over all images and pixels", 1, better="lower"),
        Column("images"), Column("copies", meaning="noisy copies"),
    ]  # fmt: skip
    rows = [
        row(
            model, epsilon, _mean([one.certified[1] if one.certified else None for one in own]),
            _mean([one.plain_psnr for one in own]), _lost(own), sigma,
            *(_mean([getattr(one, f"certified_{name}") for one in own]) for name in ("median", "mean", "centre")),
            255 * max(one.largest_move for one in own), len(own), copies,
        )
        for (model, epsilon, (sigma, copies, *_)), own in grouped(
            records, lambda r: (r.model, r.epsilon, _sampled(r))
        ).items()
    ]  # fmt: skip
    alpha = max(one.alpha for one in records)
    words = (
        "Means over images, PSNR over RGB. Certified: for every perturbation of the input within the radius; each "
        f"figure of each image with a confidence of {100 * (1 - alpha):.6g} % at least, the best of the three with "
        f"{max(0.0, 100 * (1 - 3 * alpha)):.6g} %."
    )
    return Table("Certified by model, noise and radius", columns, rows, caption=words)


def _images_table(records: Records) -> Table:
    columns = [
        Column("image"), Column("certified SR-PSNR", "dB", better="higher", key=True), Column("of the"),
        Column("radius", "l2", digits=4), Column("model"), Column("sigma", digits=3),
        Column("against truth, clean", "dB", "of that output", better="higher"),
        Column("against truth, certified", "dB", "the better of median and mean", better="higher"),
        Column("pixel moves at most", "of 255", digits=1, better="lower"),
    ]  # fmt: skip
    rows = [
        row(
            one.image, one.certified[1] if one.certified else None, one.certified[0] if one.certified else "",
            one.epsilon, one.model, one.sigma, one.kept_psnr,
            max((v for v in (one.certified_truth_median, one.certified_truth_mean) if v is not None), default=None),
            255 * one.largest_move,
        )
        for one in records
    ]  # fmt: skip
    return Table("Certified images", columns, rows, sort="certified SR-PSNR")


def _statistics_table(records: Records) -> list[Table]:
    rows = [
        row(
            record.image,
            record.model,
            record.sigma,
            record.epsilon,
            one.name,
            one.value,
            one.lower,
            one.upper,
            one.widest,
        )
        for record in records
        for one in record.statistics
    ]
    columns = [
        Column("image"), Column("model"), Column("sigma", digits=3), Column("radius", "l2", digits=4),
        Column("statistic"), Column("value", digits=4), Column("from", digits=4), Column("to", digits=4),
        Column("widest interval", digits=4, better="lower"),
    ]  # fmt: skip
    words = "Smoothed themselves, not derived from the pixels; of several values all intervals hold together."
    return [Table("Statistics of the outputs", columns, rows, caption=words)] if rows else []


def _radii_chart(records: Records) -> list[Chart]:
    """Draw certified SR-PSNR over the radius, a curve for each model and sigma."""
    if len({record.epsilon for record in records}) < 2:
        return []
    models = sorted({record.model for record in records})
    data: list[Figure] = []
    for (model, sigma), own in grouped(records, lambda record: (record.model, record.sigma)).items():
        radii = grouped(sorted(own, key=lambda record: record.epsilon), lambda record: record.epsilon)
        y = [round(statistics.fmean(_certified(one) for one in found), 2) for found in radii.values()]
        colour, marker = look_of(model, models)
        line = curve(f"{model}, sigma {sigma:g}", list(radii), y, "%{x}: %{y:.1f} dB", "lines+markers")
        data.append(line | {"line": {"color": colour}, "marker": {"symbol": marker, "color": colour}})
    layout = layout_of(axis("l2 radius", type="log"), axis("certified SR-PSNR, dB"))
    words = "The best bounded output of each image, mean over images; no attack within the radius can leave less."
    return [Chart("certified-radii", "Certified SR-PSNR over the radius", words, {"data": data, "layout": layout})]


def _trade_chart(records: Records) -> list[Chart]:
    """Draw certified SR-PSNR against clean PSNR, a point for each sigma, at the middle radius."""
    known = [record for record in records if record.kept_psnr is not None]
    radii = sorted({record.epsilon for record in known})
    if not radii or len({(record.model, record.sigma) for record in known}) < 2:
        return []
    radius = radii[len(radii) // 2]
    shown = [record for record in known if record.epsilon == radius]
    models = sorted({record.model for record in shown})
    data: list[Figure] = []
    for model, own in grouped(shown, lambda record: record.model).items():
        sigmas = grouped(sorted(own, key=lambda record: record.sigma), lambda record: record.sigma)
        x = [round(statistics.fmean(one.kept_psnr or 0.0 for one in found), 2) for found in sigmas.values()]
        y = [round(statistics.fmean(_certified(one) for one in found), 2) for found in sigmas.values()]
        colour, marker = look_of(model, models)
        line = curve(model, x, y, "%{text}: %{x:.2f} dB clean, %{y:.1f} dB certified", "lines+markers")
        line |= {"text": [f"sigma {sigma:g}" for sigma in sigmas], "line": {"color": colour}}
        data.append(line | {"marker": {"symbol": marker, "color": colour}})
    layout = layout_of(axis("clean PSNR of the smoothed model, dB"), axis("certified SR-PSNR, dB"))
    words = (
        f"A point for each sigma, at an l2 radius of {radius:g}; both of the best bounded output, means over images."
    )
    return [Chart("certified-trade", "Certified against clean", words, {"data": data, "layout": layout})]
