"""JSON as RFC 8259 defines it: NaN and Infinity are never written, and all input is checked.

All modules read and write JSON with these functions.
"""

import json
import math
import re
import reprlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar

import msgspec

from uflow_edge.runtime.errors import UflowEdgeError
from uflow_edge.runtime.storage.files import read_bounded

T = TypeVar("T")
LIMIT = 32 << 20
"""Maximum size of a JSON file that is read, in bytes."""

_PRINTABLE, _SHA256 = r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*\Z", r"^[0-9a-f]{64}\Z"
_PATTERNS = {_PRINTABLE: "text without control characters", _SHA256: "a checksum (SHA-256, 64 hexadecimal digits)"}
Text: TypeAlias = Annotated[str, msgspec.Meta(pattern=_PRINTABLE, max_length=4096)]
Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=_SHA256)]


def to_json(value: Any, indent: int | None = None, *, ensure_ascii: bool = True) -> str:
    """Write JSON.

    Raises:
        ValueError: a number is NaN or infinite; see `finite`.
    """
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def finite(value: Any) -> Any:
    """The value with None for NaN and infinity, for measurements that may be undefined, such as an empty mean."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def parse_json(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: the text is not JSON, holds a number that is not finite or a key twice, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite_float, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: as for `parse_json`, or the file is not regular, too large, or not UTF-8.
    """
    return parse_json(read_bounded(path, LIMIT).decode("utf-8"))


def decode(values: Any, kind: type[T]) -> T:
    """Build a dataclass from parsed JSON, and check fields, types and ranges.

    Ranges are given by ``Annotated[…, msgspec.Meta(…)]`` and checked by ``__post_init__``.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of range; the message gives its place.
    """
    try:
        found = msgspec.convert(values, kind, strict=True)
    except UnicodeEncodeError as error:
        raise ValueError("a text holds an incomplete character (an unpaired surrogate)") from error
    except msgspec.ValidationError as error:
        raise ValueError(_with_place_first(str(error))) from error
    except UflowEdgeError as error:
        raise ValueError(str(error)) from error
    for place in _unknown_fields(values, found):
        raise ValueError(f"unknown field {place}")
    return found


def _with_place_first(message: str) -> str:
    complaint, _, place = message.partition(" - at `")
    complaint = re.sub(r"`(\w+)`", r"\1", complaint).replace("Invalid enum value", "Unknown value")
    for pattern, meaning in _PATTERNS.items():
        complaint = complaint.replace(f"str matching regex {pattern!r}", meaning)
    place = place.strip("`").removeprefix("$").removeprefix(".")
    complaint = textwrap.shorten(complaint[0].lower() + complaint[1:], 200)
    return f"{place}: {complaint}" if place else complaint


def _unknown_fields(values: Any, found: Any, place: str = "") -> Iterator[str]:
    if is_dataclass(found):
        known = {field.name for field in fields(found)}
        for name, value in values.items():
            if name in known:
                yield from _unknown_fields(value, getattr(found, name), f"{place}.{name}".removeprefix("."))
            else:
                yield f"{reprlib.repr(name)} in {place}" if place else reprlib.repr(name)
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for i, (value, one) in enumerate(zip(values, found, strict=True)):
            yield from _unknown_fields(value, one, f"{place}[{i}]")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {reprlib.repr(twice)} appears twice")
    return found
