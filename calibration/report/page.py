"""``report.html``: what was calibrated on what, and what it is worth. One file, no script, nothing from elsewhere."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from uflow_edge.calibration.calibrate import Calibration, Judged
from uflow_edge.calibration.findings import alarm_rows, decimal, notices, percent
from uflow_edge.calibration.operating_point import clopper_pearson, threshold_band
from uflow_edge.calibration.report.charts import quantiles, score_histogram
from uflow_edge.calibration.report.pictures import Picture, Pictures
from uflow_edge.calibration.report.style import STYLE
from uflow_edge.export.graphs.parity import PARITY, read_parities
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.heat import legend_html
from uflow_edge.runtime.operating_point import OperatingPoint

_LISTED = 200
_BAND_CONFIDENCE = 0.95


def report_page(
    bundle: Bundle[UFlowManifest],
    calibration: Calibration,
    pictures: Pictures,
    latencies_ms: Mapping[tuple[str, str], float],
    made: datetime,
) -> str:
    """The page.

    Args:
        bundle: that was calibrated; its ``parity.json`` is shown, if it has one.
        calibration: what was found.
        pictures: of the images themselves.
        latencies_ms: see `latency.latencies_ms`.
        made: when.
    """
    name = escape(bundle.folder.resolve().name)
    body = [
        f"<header><h1>Calibration of {name}</h1><p>{len(calibration.held_out) + len(calibration.fitted)} good images, "
        f"{made:%Y-%m-%d %H:%M %Z}</p></header>",
        _cards(calibration),
        _notices(calibration),
        _section("Scores of held-out good images", _scores(calibration)),
        _section("False alarms on good images", _alarms(calibration)),
        _section("The null model", _null_model(calibration, bundle.manifest)),
        _section("What good frames look like, to notice drift", _drift(calibration, bundle.manifest)),
        _section("What other graphs and engines cost", _costs(bundle, latencies_ms)),
        _section("Images that look anomalous", _suspicious(calibration, pictures)),
        _section("Held-out images, the highest scores: what is nearest to a false alarm", _gallery(pictures.highest)),
        _section("Held-out images, the lowest scores", _gallery(pictures.lowest)),
        _section("What was calibrated on what", _facts(bundle, calibration, made)),
    ]
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta name=color-scheme content='light dark'>"
        f"<title>Calibration of {name}</title><style>{STYLE}</style><body><main>{''.join(body)}</main></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "plain") -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    heading = "".join(f"<th>{cell}</th>" for cell in head)
    return f"<div class=wide><table class={kind}><tr>{heading}</tr>{lines}</table></div>"


def _note(text: str) -> str:
    return f"<p class=note-text>{text}</p>"


def _cards(calibration: Calibration) -> str:
    point, images = calibration.operating_point, len(calibration.held_out)
    natural = calibration.above(0.0)
    fit = calibration.null_fit
    null = ("none", "latents are taken as N(0, 1)")
    if fit is not None:
        distances = [(scale.ks_before, scale.ks_after) for scale in fit.goodness.scales]
        before, after = (max(pair) for pair in zip(*distances, strict=True))
        null = (f"{after:.3f}", f"largest distance of p-values from uniform; {before:.3f} before")
    cards = [
        ("Threshold", decimal(point.threshold), "on the score, −log10 NFA"),
        _promise_card(point),
        ("At log-NFA 0 instead", percent(natural / images), f"{natural} of {images} held-out good images flagged"),
        ("Null model", *null),
    ]
    return "<div class=cards>" + "".join(
        f"<div class=card><p class=label>{label}</p><p class=figure>{figure}</p><p>{text}</p></div>"
        for label, figure, text in cards
    ) + "</div>"  # fmt: skip


def _promise_card(point: OperatingPoint) -> tuple[str, str, str]:
    if point.doubt is not None:
        return "Promise", "none", point.doubt
    trust = "on average" if point.confidence is None else f"with {point.confidence * 100:.4g} % confidence"
    share = f"≤ {(point.false_alarm_rate or 0) * 100:.3g} %"
    return "Promise", share, f"of good images called anomalous, {trust}{point.condition}"


def _notices(calibration: Calibration) -> str:
    found = notices(calibration)
    return f"<div class=notice><ul>{''.join(f'<li>{escape(text)}</li>' for text in found)}</ul></div>" if found else ""


def _scores(calibration: Calibration) -> str:
    point, scores = calibration.operating_point, calibration.scores
    confidence = point.confidence or _BAND_CONFIDENCE
    band = threshold_band(scores, point.false_alarm_rate or 0.5, confidence)
    share = (point.false_alarm_rate or 0.5) * 100
    trust = f"with {confidence * 100:.4g} % confidence"
    low, high = band
    known = [f"{side} {decimal(end)}" for side, end in (("above", low), ("below", high)) if math.isfinite(end)]
    where = (
        f"It lies {' and '.join(known)}, {'each ' if len(known) == 2 else ''}{trust}: the shaded band. "
        if known
        else f"So few images bound it on neither side {trust}. "
    )
    return f"<div class=wide>{score_histogram(scores, point.threshold, band)}</div>" + _note(
        f"The score that {share:.3g} % of all good images exceed is not known exactly. {where}"
        "An image is anomalous when its score is above the threshold; ties count as good."
    )


def _alarms(calibration: Calibration) -> str:
    rows = []
    for label, count, images in alarm_rows(calibration):
        low, high = clopper_pearson(count, images)
        rows.append([label, f"{count} of {images}", percent(count / images), f"{percent(low)} to {percent(high)}"])
    return _table(["", "flagged", "share", "95 % interval"], rows) + _note(
        "Intervals: Clopper–Pearson. The threshold was taken from the held-out images, so the first line is by "
        "construction; images of the null model were judged by models that had not seen them, fitted to four fifths of "
        "the others, and are the independent check."
    )


def _null_model(calibration: Calibration, manifest: UFlowManifest) -> str:
    fit = calibration.null_fit
    if fit is None:
        return ""
    plots, rows = [], []
    for i, (found, scale) in enumerate(zip(fit.goodness.scales, manifest.scales, strict=True)):
        title = f"Scale {i + 1}: {scale.height} × {scale.width}, {scale.channels} channels"
        plot = quantiles(found.expected, found.before, found.after, f"Q–Q plot of scale {i + 1}")
        plots.append(f"<div><h3>{title}</h3>{plot}</div>")
        rows.append([title, f"{found.ks_before:.3f}", f"{found.ks_after:.3f}"])
    goodness = fit.goodness
    return (
        "<p class=keys><span class='key before'><i></i>before, χ² law</span><span class=key><i></i>after</span>"
        "<span class='key diagonal'><i></i>as it should be</span></p>"
        f"<div class=plots>{''.join(plots)}</div>"
        + _table(["Kolmogorov–Smirnov distance of p-values from uniform", "before", "after"], rows)
        + _note(
            f"Learned from {len(calibration.fitted)} images; every image was judged by a model that had not seen it. "
            "Curves above the diagonal promise too much: improbable values come more often than the model says. "
            f"Regions with log-NFA ≤ 0: {goodness.false_alarms_per_image:.2f} per good image (promised: at most 1), in "
            f"{percent(goodness.images_flagged)} of the images."
        )
    )


def _drift(calibration: Calibration, manifest: UFlowManifest) -> str:
    drift = calibration.drift
    if drift is None:
        return ""
    names = [f"ln(mean E / C), scale {i + 1} (stride {scale.stride})" for i, scale in enumerate(manifest.scales)]
    rows = []
    for name, mean, deviation in zip([*names, "score"], drift.mean, drift.deviation, strict=True):
        reach = drift.limit * deviation
        rows.append([name, *(decimal(value) for value in (mean, deviation, mean - reach, mean + reach))])
    return _table(["of a good image", "mean", "deviation", "warning below", "warning above"], rows) + _note(
        f"From {drift.images} images. While the line runs, an average over about 100 frames judged good is held "
        f"against these; at {drift.limit:.2f} standard deviations the camera is said to drift."
    )


def _costs(bundle: Bundle[UFlowManifest], latencies_ms: Mapping[tuple[str, str], float]) -> str:
    parities = read_parities(bundle.folder / PARITY)
    if not parities:
        return ""
    rows = []
    for file, entries in parities.items():
        for entry in entries:
            engine = str(entry.get("engine", "?"))
            verdict = "<span class=good>kept</span>" if entry.get("holds") is True else "<span class=bad>missed</span>"
            milliseconds = latencies_ms.get((file, engine))
            rows.append(
                [
                    escape(file) + ("" if file in bundle.manifest.files else " <span class=quiet>(not written)</span>"),
                    escape(engine),
                    _worst(entry.get("energy_error", "?"), ".1e"),
                    _worst(entry.get("mean_energy_error", "?"), ".1e"),
                    _worst(entry.get("score_change", "?"), ".2g"),
                    _worst(entry.get("mask_iou", "?"), ".4f"),
                    "" if milliseconds is None else f"{milliseconds:.1f}",
                    verdict,
                ]
            )
    head = ["graph", "engine", "energy, worst", "mean", "log-NFA", "mask IoU", "ms", "bound"]
    return _table(head, rows, "costs") + _note(
        "Against the checkpoint in torch, or the graph it was built from: relative error of energies, largest change "
        "of an image's log-NFA in decades, smallest overlap of the masks; by what decided when the graph was made: for "
        "those made before the first calibration, or with it, that is not the null model. "
        "Milliseconds: median of one image, network alone, on this machine."
    )


def _worst(values: Any, digits: str) -> str:
    """A number, or the largest of the scales'; null stands for one that is not finite."""
    found = values if isinstance(values, list) else [values]
    if not found or not all(
        one is None or isinstance(one, float) or (type(one) is int and abs(one) < 1e9) for one in found
    ):
        return "?"  # another program's, or an older one's
    return "not finite" if None in found else format(float(max(found)), digits)


def _suspicious(calibration: Calibration, pictures: Pictures) -> str:
    listed = [
        *((judged, "held out; counted") for judged in calibration.suspicious_held_out),
        *((judged, "left out of the null model") for judged in calibration.suspicious_fitted),
    ]
    if not listed:
        return ""
    rows = [[escape(str(judged.image.path)), decimal(judged.score), what] for judged, what in listed[:_LISTED]]
    more = f"<p class=quiet>and {len(listed) - _LISTED} more</p>" if len(listed) > _LISTED else ""
    legend = legend_html(calibration.operating_point.threshold)
    return legend + _gallery(pictures.suspicious) + _table(["image", "score", ""], rows) + more


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return f"<div class=gallery>{''.join(map(_figure, pictures))}</div>"


def _figure(picture: Picture) -> str:
    judged: Judged = picture.judged
    name = escape(judged.image.path.name)
    return (
        f"<figure><img alt='' src='data:image/jpeg;base64,{picture.jpeg}'>"
        f"<figcaption title='{name}'><b>{decimal(judged.score)}</b> {name}</figcaption></figure>"
    )


def _facts(bundle: Bundle[UFlowManifest], calibration: Calibration, made: datetime) -> str:
    manifest, options = bundle.manifest, calibration.options
    folders = sorted({str(judged.image.path.parent) for judged in calibration.held_out})
    facts = [
        ("bundle", escape(str(bundle.folder.resolve().name))),
        ("checkpoint", f"{escape(manifest.source.name)} <code>{manifest.source.sha256[:16]}…</code>"),
        ("network", f"{escape(manifest.extractor)}, {manifest.input_size} × {manifest.input_size}, {manifest.fit}"),
        ("run by", escape(calibration.engine)),
        ("images", "<br>".join(map(escape, folders[:10])) + ("<br>…" if len(folders) > 10 else "")),
        (
            "parted into",
            f"{len(calibration.fitted)} for the null model, {len(calibration.held_out)} held out for the threshold; "
            f"seed {options.seed}",
        ),
        ("parts of a frame", str(options.views)),
        (
            "threshold before",
            f"{decimal(manifest.operating_point.threshold)}; {escape(manifest.operating_point.promise)}",
        ),
        ("made", f"{made:%Y-%m-%d %H:%M:%S %Z}"),
    ]
    if calibration.admission.unreadable:
        facts.append(("unreadable", "<br>".join(map(escape, calibration.admission.unreadable[:_LISTED]))))
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts)
    return f"<table class=facts>{rows}</table>"
