"""The report of `uflow-purify`: one HTML file with numbers and pictures, no script, no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.images import Outcome
from uflow_edge.runtime.purify.pictures import read_picture
from uflow_edge.runtime.report_style import STYLE
from uflow_edge.runtime.storage.files import replacing

DIFFERENCE_GAIN = 8
"""How many times the difference between two pictures is amplified to be seen."""
MOST_SHOWN = 40
"""Pictures in the report; the table has all."""
_SHOWN_SIDE = 320
_JPEG_QUALITY = 92

_TRIPLES = """
.triple { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; margin-top: 14px; }
.triple h3 { grid-column: 1 / -1; }
@media (max-width: 780px) { .triple { grid-template-columns: minmax(0, 1fr); } }
"""


def write_report(path: Path, outcomes: Sequence[Outcome], settings: Mapping[str, str]) -> None:
    """Write the page in one rename. Pictures are read from the files that the outcomes name.

    Args:
        path: of the page.
        outcomes: of all pictures.
        settings: what to say about how they were purified.
    """
    shown = [outcome for outcome in outcomes if outcome.status != "failed"][:MOST_SHOWN]
    head = ["picture", "status", "pixels", "PSNR / dB", "SSIM", "seconds", ""]
    settings_rows = [[escape(name), escape(value)] for name, value in settings.items()]
    more = f"<p class=note-text>{len(shown)} of {len(outcomes)} pictures are shown.</p>"
    body = [
        "<header><h1>Purified pictures</h1><p>Made by a diffusion network. For testing forensic detectors and for "
        "preparing pictures for inspection; not for passing off a picture as an original.</p></header>",
        f"<section><h2>Settings</h2>{_table(['setting', 'value'], settings_rows, 'facts')}</section>",
        f"<section><h2>Pictures</h2>{_table(head, [_row(outcome) for outcome in outcomes])}</section>",
        f"<section><h2>Before, after, difference</h2><p class=note-text>The middle {_SHOWN_SIDE} pixels of each "
        f"picture, pixel by pixel. The difference is amplified {DIFFERENCE_GAIN} times, about mid-grey.</p>",
        *map(_triple, shown),
        f"{more if len(outcomes) > len(shown) else ''}</section>",
    ]
    page = (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta name=color-scheme content='light dark'>"
        f"<title>Purified pictures</title><style>{STYLE}{_TRIPLES}</style><body><main>"
    )
    with replacing(path) as temporary:
        temporary.write_text(
            page + "\n".join(body) + "</main></body></html>\n", encoding="utf-8", errors="backslashreplace"
        )


def difference_picture(before: Image, after: Image) -> Image:
    """What changed, amplified, with mid-grey where nothing did."""
    amplified = (after.astype(np.int32) - before) * DIFFERENCE_GAIN + 128
    return np.asarray(np.clip(amplified, 0, 255), np.uint8)


def _row(outcome: Outcome) -> list[str]:
    remark = f"<span class=bad>{escape(outcome.error)}</span>" if outcome.error else escape("; ".join(outcome.notes))
    return [
        escape(outcome.job.source.name),
        outcome.status,
        "" if outcome.size is None else f"{outcome.size[1]} × {outcome.size[0]}",
        "" if outcome.psnr is None else f"{outcome.psnr:.2f}",
        "" if outcome.ssim is None else f"{outcome.ssim:.4f}",
        "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
        remark,
    ]


def _triple(outcome: Outcome) -> str:
    try:
        before, after = (_middle(read_picture(path).values) for path in (outcome.job.source, outcome.job.result))
    except BadInput as error:  # gone since
        return f"<p class=bad>{escape(str(error))}</p>"
    pictures = {"before": before, "after": after, f"difference × {DIFFERENCE_GAIN}": difference_picture(before, after)}
    figures = "".join(
        f'<figure><img src="{_data_uri(picture)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
        for caption, picture in pictures.items()
    )
    return f"<div class=triple><h3>{escape(outcome.job.source.name)}</h3>{figures}</div>"


def _middle(values: Image) -> Image:
    top, left = (max(extent - _SHOWN_SIDE, 0) // 2 for extent in values.shape[:2])
    return values[top : top + _SHOWN_SIDE, left : left + _SHOWN_SIDE]


def _data_uri(picture: Image) -> str:
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "plain") -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table class={kind}><tr>{head}</tr>{lines}</table></div>"
