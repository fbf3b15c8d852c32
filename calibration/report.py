"""``report.html``: what was calibrated on what, and what it is worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from uflow_edge.calibration.calibrate import Calibration, InspectedImage
from uflow_edge.calibration.operating_point import threshold_band
from uflow_edge.calibration.summary import alarm_rows, notices
from uflow_edge.export.graphs.parity import PARITY, read_parities
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.report.charts import quantiles, score_histogram
from uflow_edge.runtime.report.page import render
from uflow_edge.runtime.report.pictures import Figure, jpeg_uri, small_overlay
from uflow_edge.runtime.text import decimal, percent

_SHOWN = 6
_LISTED = 200
_MOST_FOLDERS = 10
_BAND_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Pictures:
    """The held-out images with the highest and the lowest scores, and those that look anomalous; the worst first."""

    highest: Sequence[Figure] = ()
    lowest: Sequence[Figure] = ()
    suspicious: Sequence[Figure] = ()


def draw_pictures(calibration: Calibration, inspector: Inspector) -> Pictures:
    """Inspect the images again that the report shows.

    Args:
        inspector: with the new null model and threshold.
    """

    def draw(chosen: Sequence[InspectedImage]) -> list[Figure]:
        return [_figure(judged, inspector) for judged in chosen]

    ranked = sorted(calibration.held_out, key=lambda judged: -judged.score)
    suspicious = (*calibration.suspicious_held_out, *calibration.suspicious_fitted)[: 2 * _SHOWN]
    return Pictures(draw(ranked[:_SHOWN]), draw(ranked[: -_SHOWN - 1 : -1]), draw(suspicious))


def report_page(
    bundle: Bundle[UFlowManifest],
    calibration: Calibration,
    pictures: Pictures,
    latencies_ms: Mapping[tuple[str, str], float],
    made: datetime,
) -> str:
    """The page as HTML.

    Args:
        bundle: the bundle that was calibrated; its ``parity.json`` is shown, if it has one.
        latencies_ms: see `latency.latencies_ms`.
    """
    point, rate = calibration.operating_point, calibration.operating_point.false_alarm_rate or 0.5
    confidence = point.confidence or _BAND_CONFIDENCE
    band = threshold_band(calibration.scores, rate, confidence)
    plots, distances = _null_model(calibration, bundle.manifest)
    suspicious = [
        [str(judged.image.path), decimal(judged.score), fate]
        for some, fate in (
            (calibration.suspicious_held_out, "held out; counted"),
            (calibration.suspicious_fitted, "left out of the null model"),
        )
        for judged in some
    ]
    return render(
        Path(__file__).with_suffix(".html"),
        title=f"Calibration of {bundle.folder.resolve().name}",
        made=made,
        calibration=calibration,
        point=point,
        cards=_cards(calibration),
        notices=notices(calibration),
        histogram=score_histogram(calibration.scores, point.threshold, band),
        rate=f"{rate * 100:.3g} %",
        confidence=f"{confidence * 100:.4g} %",
        bounds=[
            f"{side} {decimal(end)}" for side, end in zip(("above", "below"), band, strict=True) if math.isfinite(end)
        ],
        alarms=alarm_rows(calibration),
        plots=plots,
        distances=distances,
        drift=_drift(calibration, bundle.manifest),
        costs=_costs(bundle, latencies_ms),
        suspicious=suspicious[:_LISTED],
        more_suspicious=len(suspicious) - _LISTED,
        pictures=pictures,
        facts=_facts(bundle, calibration, made),
    )


def _figure(judged: InspectedImage, inspector: Inspector) -> Figure:
    frame = read_image(judged.image.path)
    picture = small_overlay(frame, inspector.examine(frame), inspector.manifest.channels)
    return Figure(jpeg_uri(picture), judged.image.path.name, judged.score)


def _cards(calibration: Calibration) -> list[tuple[str, str, str]]:
    point, images = calibration.operating_point, len(calibration.held_out)
    natural = calibration.above(0.0)
    null = ("none", "latents are taken as N(0, 1)")
    if calibration.null_fit is not None:
        scales = calibration.null_fit.goodness.scales
        before, after = max(scale.ks_before for scale in scales), max(scale.ks_after for scale in scales)
        null = (f"{after:.3f}", f"largest distance of p-values from uniform; {before:.3f} before")
    return [
        ("Threshold", decimal(point.threshold), "on the score, −log10 NFA"),
        ("Promise", *_promise(point)),
        ("At log-NFA 0 instead", percent(natural / images), f"{natural} of {images} held-out good images flagged"),
        ("Null model", *null),
    ]


def _promise(point: OperatingPoint) -> tuple[str, str]:
    if point.doubt is not None:
        return "none", point.doubt
    trust = "on average" if point.confidence is None else f"with {point.confidence * 100:.4g} % confidence"
    share = f"≤ {(point.false_alarm_rate or 0) * 100:.3g} %"
    return share, f"of good images called anomalous, {trust}{point.condition}"


def _null_model(calibration: Calibration, manifest: UFlowManifest) -> tuple[dict[str, Markup], list[list[str]]]:
    """Q–Q plots by title, and the distances of p-values from uniform, before and after; none without a null model."""
    plots, distances = {}, []
    found = () if calibration.null_fit is None else calibration.null_fit.goodness.scales
    for i, (one, scale) in enumerate(zip(found, manifest.scales, strict=bool(found)), 1):
        title = f"Scale {i}: {scale.height} × {scale.width}, {scale.channels} channels"
        plots[title] = quantiles(one.expected, one.before, one.after, f"Q–Q plot of scale {i}")
        distances.append([title, f"{one.ks_before:.3f}", f"{one.ks_after:.3f}"])
    return plots, distances


def _drift(calibration: Calibration, manifest: UFlowManifest) -> list[list[str]]:
    drift = calibration.drift
    if drift is None:
        return []
    names = [f"ln(mean E / C), scale {i} (stride {scale.stride})" for i, scale in enumerate(manifest.scales, 1)]
    return [
        [name, *map(decimal, (mean, deviation, mean - drift.limit * deviation, mean + drift.limit * deviation))]
        for name, mean, deviation in zip([*names, "score"], drift.mean, drift.deviation, strict=True)
    ]


def _costs(bundle: Bundle[UFlowManifest], latencies_ms: Mapping[tuple[str, str], float]) -> list[list[str | Markup]]:
    rows: list[list[str | Markup]] = []
    for file, entries in read_parities(bundle.folder / PARITY).items():
        graph = (
            file if file in bundle.manifest.files else Markup("{} <span class=quiet>(not written)</span>").format(file)
        )
        for entry in entries:
            engine = str(entry.get("engine", "?"))
            kind, verdict = ("good", "kept") if entry.get("holds") is True else ("bad", "missed")
            milliseconds = latencies_ms.get((file, engine))
            rows.append(
                [
                    graph,
                    engine,
                    _worst(entry.get("energy_error", "?"), ".1e"),
                    _worst(entry.get("mean_energy_error", "?"), ".1e"),
                    _worst(entry.get("score_change", "?"), ".2g"),
                    _worst(entry.get("mask_iou", "?"), ".4f"),
                    "" if milliseconds is None else f"{milliseconds:.1f}",
                    Markup("<span class={}>{}</span>").format(kind, verdict),
                ]
            )
    return rows


def _worst(values: Any, digits: str) -> str:
    """A number, or the largest of the scales'; null stands for one that is not finite."""
    found = values if isinstance(values, list) else [values]
    if not found or not all(
        one is None or isinstance(one, float) or (type(one) is int and abs(one) < 1e9) for one in found
    ):
        return "?"  # another program's, or an older one's
    return "not finite" if None in found else format(float(max(found)), digits)


def _facts(bundle: Bundle[UFlowManifest], calibration: Calibration, made: datetime) -> list[tuple[str, str | Markup]]:
    manifest, options, before = bundle.manifest, calibration.options, bundle.manifest.operating_point
    folders = sorted({str(judged.image.path.parent) for judged in calibration.held_out})
    facts: list[tuple[str, str | Markup]] = [
        ("bundle", bundle.folder.resolve().name),
        ("checkpoint", Markup("{} <code>{}…</code>").format(manifest.source.name, manifest.source.sha256[:16])),
        ("network", f"{manifest.extractor}, {manifest.input_size} × {manifest.input_size}, {manifest.fit}"),
        ("engine", calibration.engine),
        ("images", _lines([*folders[:_MOST_FOLDERS], *(["…"] if len(folders) > _MOST_FOLDERS else [])])),
        (
            "split",
            f"{len(calibration.fitted)} for the null model, {len(calibration.held_out)} held out for the threshold; "
            f"seed {options.seed}",
        ),
        ("parts of a frame", str(options.views)),
        ("threshold before", f"{decimal(before.threshold)}; {before.promise}"),
        ("made", f"{made:%Y-%m-%d %H:%M:%S %Z}"),
    ]
    if calibration.admission.unreadable:
        facts.append(("unreadable", _lines(calibration.admission.unreadable[:_LISTED])))
    return facts


def _lines(texts: Sequence[str]) -> Markup:
    return Markup("<br>").join(texts)
