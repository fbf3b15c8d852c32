"""The live page: what a line operator looks at all day, served to tablets by the process that inspects.

    page = LivePage(inspector.manifest.channels, controls)
    server = serve(page, port=8000)      # http://127.0.0.1:8000/
    page.put(frame, inspection)          # from the pipeline, as of any sink
    server.close()

Importing this package imports none of what it runs on; each name loads its own module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uflow_edge.runtime.page.controls import Controls
    from uflow_edge.runtime.page.server import PageServer, serve
    from uflow_edge.runtime.page.state import LivePage

__all__ = ["Controls", "LivePage", "PageServer", "serve"]

_HOMES = {
    "Controls": "controls",
    "LivePage": "state",
    "PageServer": "server",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
