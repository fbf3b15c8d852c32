"""The report of `uflow-purify`: how each picture changed, in numbers and in pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.content import read_content
from uflow_edge.runtime.purify.images import PurifyOutcome
from uflow_edge.runtime.report.page import render, write_page
from uflow_edge.runtime.report.pictures import jpeg_uri

DIFFERENCE_GAIN = 8
"""How many times the difference between two pictures is amplified to be seen."""
MOST_SHOWN = 40
"""Pictures in the report; the table has all."""
_SHOWN_SIDE = 320
_JPEG_QUALITY = 92


def write_report(path: Path, outcomes: Sequence[PurifyOutcome], settings: Mapping[str, str]) -> None:
    """Write the page in one rename. Pictures are read from the files that the outcomes name."""
    shown = [outcome for outcome in outcomes if outcome.status != "failed"][:MOST_SHOWN]
    page = render(
        Path(__file__).with_suffix(".html"),
        title="Purified pictures",
        settings=list(settings.items()),
        rows=[_row(outcome) for outcome in outcomes],
        side=_SHOWN_SIDE,
        gain=DIFFERENCE_GAIN,
        triples=[_triple(outcome) for outcome in shown],
    )
    write_page(path, page)


def difference_picture(before: Image, after: Image) -> Image:
    """What changed, amplified, with mid-grey where nothing did."""
    amplified = (after.astype(np.int32) - before) * DIFFERENCE_GAIN + 128
    return np.asarray(np.clip(amplified, 0, 255), np.uint8)


def _row(outcome: PurifyOutcome) -> list[str]:
    error = Markup('<span class="bad">{}</span>').format(outcome.error)
    return [
        outcome.job.source.name,
        outcome.status,
        "" if outcome.size is None else f"{outcome.size[1]} × {outcome.size[0]}",
        "" if outcome.psnr is None else f"{outcome.psnr:.2f}",
        "" if outcome.ssim is None else f"{outcome.ssim:.4f}",
        "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
        error if outcome.error else "; ".join(outcome.notes),
    ]


def _triple(outcome: PurifyOutcome) -> tuple[str, dict[str, str], str]:
    """Name of the source, data URIs by caption, and why there are none."""
    name = outcome.job.source.name
    try:
        before, after = (_middle(read_content(path).values) for path in (outcome.job.source, outcome.job.result))
    except BadInput as error:  # gone since
        return name, {}, str(error)
    pictures = {"before": before, "after": after, f"difference × {DIFFERENCE_GAIN}": difference_picture(before, after)}
    return name, {caption: jpeg_uri(picture[:, :, ::-1], _JPEG_QUALITY) for caption, picture in pictures.items()}, ""


def _middle(values: Image) -> Image:
    top, left = (max(extent - _SHOWN_SIDE, 0) // 2 for extent in values.shape[:2])
    return values[top : top + _SHOWN_SIDE, left : left + _SHOWN_SIDE]
