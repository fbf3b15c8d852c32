"""Turns a report's template and numbers into one HTML file: no script, and nothing that has to be loaded."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from uflow_edge.runtime.heat import colour_bar_png, step_labels
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.text import decimal, percent

_HERE = Path(__file__).parent


def render(template: Path, **values: Any) -> str:
    """The page of a report.

    Args:
        template: the report's own, which extends ``base.html``; it lies beside the module that calls.
        values: for the template. Text is escaped, unless it is `markupsafe.Markup`.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"decimal": decimal, "percent": percent}
    environment.globals |= {
        "style": Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        "colour_bar": f"data:image/png;base64,{b64encode(colour_bar_png()).decode()}",
        "step_labels": step_labels,
    }
    return environment.get_template(template.name).render(values)


def write_page(path: Path, page: str) -> None:
    """Write a page in one rename; file names that are not UTF-8 appear with backslashes."""
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
