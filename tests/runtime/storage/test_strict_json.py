"""JSON without NaN and Infinity, in both directions."""

import math

import pytest

from uflow_edge.runtime.storage.strict_json import finite, parse_json, to_json


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_that_json_does_not_have_is_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"score": [value]})
    assert to_json(finite({"score": [value, 1.5], "name": "a", "none": None, "n": 3, "pair": (value, True)})) == (
        '{"score": [null, 1.5], "name": "a", "none": null, "n": 3, "pair": [null, true]}'
    )


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e400]", '{"a": 1, "a": 2}'])
def test_what_is_no_number_or_ambiguous_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_all_else_is_read_as_it_is() -> None:
    assert parse_json('{"a": [1, -2.5e-300, true, null, "ü"], "b": {}}') == {
        "a": [1, -2.5e-300, True, None, "ü"],
        "b": {},
    }
