"""Verdicts as rows of Parquet files: the fields of a JSON line, under the same names, plus ``error`` and provenance.

Arrow derives the columns from `Verdict.as_json`, so the fields of a verdict are defined in one place only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from uflow_edge.runtime.archive.cluster import EXTRA
from uflow_edge.runtime.archive.run_folder import shard_name
from uflow_edge.runtime.errors import require
from uflow_edge.runtime.nfa.regions import Region
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.storage.files import clear_away, replacing
from uflow_edge.runtime.verdict import Timestamps, Verdict

Outcome: TypeAlias = Literal["good", "anomalous", "unreadable"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
PARTITION: Final = "outcome"
Row: TypeAlias = dict[str, Any]
_LEFT_OUT = "drift"  # needs images in the order of time


def verdict_row(verdict: Verdict, provenance: Row) -> Row:
    """The row of an inspected image.

    Args:
        provenance: ``bundle_sha256`` and ``engine``.
    """
    fields = verdict.as_json()
    del fields[_LEFT_OUT]
    return {**fields, "error": None, **provenance}


def unreadable_row(frame: int, source: str, error: str, provenance: Row) -> Row:
    """The row of an image that was not inspected: its number, path and error; the other columns are null."""
    return {"frame": frame, "source": source, "error": error, **provenance}


def schema() -> Any:
    """The columns of every file, a ``pyarrow.Schema``."""
    arrow = require("pyarrow", EXTRA)
    row = {**verdict_row(_complete_verdict(), {"bundle_sha256": "", "engine": ""}), "error": ""}
    return arrow.Table.from_pylist([row]).schema


def write_rows(folder: Path, shard: int, rows: Sequence[Row]) -> None:
    """Write a shard, one file per outcome, and replace older files of the shard.

    Args:
        folder: folder of the run; a file is ``outcome=<outcome>/part-<shard>.parquet``, either complete or absent.
    """
    arrow, parquet = require("pyarrow", EXTRA), require("pyarrow.parquet", EXTRA)
    columns = schema()
    for outcome in OUTCOMES:
        path = folder / f"{PARTITION}={outcome}" / f"part-{shard_name(shard)}.parquet"
        clear_away(path.parent)  # partial files of a worker that was killed
        chosen = [row for row in rows if _outcome(row) == outcome]
        if not chosen:
            path.unlink(missing_ok=True)
            continue
        with replacing(path) as temporary:
            parquet.write_table(arrow.Table.from_pylist(chosen, columns), temporary, compression="zstd")


def _outcome(row: Row) -> Outcome:
    if row["error"] is not None:
        return "unreadable"
    return "anomalous" if row["anomalous"] else "good"


def _complete_verdict() -> Verdict:
    """A verdict with all fields set, so that Arrow can infer their types."""
    return Verdict(
        frame=0,
        source="",
        size=(1, 1),
        anomalous=True,
        score=1.0,
        operating_point=OperatingPoint(0.5, "conformal", 0.05, 1, 0.95, 1, ""),
        regions=(Region(0, 0, 1, 1, 1, -1.0),),
        mask=np.ones((1, 1), np.bool_),
        timestamps=Timestamps(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    )
