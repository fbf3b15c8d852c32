"""The report of `uflow-purify`: one HTML file with numbers and pictures, no script, no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.files import replacing
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.images import Outcome
from uflow_edge.runtime.purify.pictures import read_picture

DIFFERENCE_GAIN = 8
"""How many times the difference between two pictures is amplified to be seen."""
MOST_SHOWN = 40
"""Pictures in the report; the table has all."""
_SHOWN_SIDE = 320
_JPEG_QUALITY = 92

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; overflow-wrap: anywhere; }
th:first-child, td:first-child, td.text { text-align: left; }
section { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6rem; margin-bottom: 1.4rem; }
section h3 { grid-column: 1 / -1; margin: .6rem 0 0; font-size: 1rem; overflow-wrap: anywhere; }
figure { margin: 0; } figure img { width: 100%; display: block; } figcaption { font-size: .8rem; opacity: .75; }
p.note { opacity: .75; font-size: .9rem; } .failed { color: #c62828; }
"""


def write_report(path: Path, outcomes: Sequence[Outcome], settings: Mapping[str, str]) -> None:
    """Write the page in one rename. Pictures are read from the files that the outcomes name.

    Args:
        path: of the page.
        outcomes: of all pictures.
        settings: what to say about how they were purified.
    """
    shown = [outcome for outcome in outcomes if outcome.status != "failed"][:MOST_SHOWN]
    body = [
        "<h1>Purified pictures</h1>",
        "<p class=note>Made by a diffusion network. For testing forensic detectors and for preparing pictures for "
        "inspection; not for passing off a picture as an original.</p>",
        "<h2>Settings</h2>",
        _table(["setting", "value"], [[escape(name), escape(value)] for name, value in settings.items()]),
        "<h2>Pictures</h2>",
        _table(
            ["picture", "status", "pixels", "PSNR / dB", "SSIM", "seconds", ""], [_row(outcome) for outcome in outcomes]
        ),
        "<h2>Before, after, difference</h2>",
        f"<p class=note>The middle {_SHOWN_SIDE} pixels of each picture, pixel by pixel. The difference is amplified "
        f"{DIFFERENCE_GAIN} times, about mid-grey.</p>",
        *map(_section, shown),
    ]
    if len(outcomes) > len(shown):
        body.append(f"<p class=note>{len(shown)} of {len(outcomes)} pictures are shown.</p>")
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Purified pictures</title><style>{_STYLE}</style>"
    with replacing(path) as temporary:
        temporary.write_text(page + "\n".join(body) + "</html>\n", encoding="utf-8", errors="backslashreplace")


def difference_picture(before: Image, after: Image) -> Image:
    """What changed, amplified, with mid-grey where nothing did."""
    amplified = (after.astype(np.int32) - before) * DIFFERENCE_GAIN + 128
    return np.asarray(np.clip(amplified, 0, 255), np.uint8)


def _row(outcome: Outcome) -> list[str]:
    remark = f"<span class=failed>{escape(outcome.error)}</span>" if outcome.error else escape("; ".join(outcome.notes))
    return [
        escape(outcome.job.source.name),
        outcome.status,
        "" if outcome.size is None else f"{outcome.size[1]} × {outcome.size[0]}",
        "" if outcome.psnr is None else f"{outcome.psnr:.2f}",
        "" if outcome.ssim is None else f"{outcome.ssim:.4f}",
        "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
        remark,
    ]


def _section(outcome: Outcome) -> str:
    try:
        before, after = (_middle(read_picture(path).values) for path in (outcome.job.source, outcome.job.result))
    except BadInput as error:  # gone since
        return f"<p class=failed>{escape(str(error))}</p>"
    pictures = {"before": before, "after": after, f"difference × {DIFFERENCE_GAIN}": difference_picture(before, after)}
    figures = "".join(
        f'<figure><img src="{_data_uri(picture)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
        for caption, picture in pictures.items()
    )
    return f"<section><h3>{escape(outcome.job.source.name)}</h3>{figures}</section>"


def _middle(values: Image) -> Image:
    top, left = (max(extent - _SHOWN_SIDE, 0) // 2 for extent in values.shape[:2])
    return values[top : top + _SHOWN_SIDE, left : left + _SHOWN_SIDE]


def _data_uri(picture: Image) -> str:
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"
