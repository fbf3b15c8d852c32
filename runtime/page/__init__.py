"""The live page for line operators, served to tablets and other browsers by the inspecting process.

    page = LivePage(inspector.manifest.channels, controls)
    server = serve(page, port=8000)      # http://127.0.0.1:8000/
    page.put(frame, inspection)          # the pipeline calls this, as for any sink
    server.close()

Importing this package does not import the web server; each name loads its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uflow_edge.runtime.page.server import PageServer, serve
    from uflow_edge.runtime.page.state import Controls, LivePage

__all__ = ["Controls", "LivePage", "PageServer", "serve"]

_MODULES = {"Controls": "state", "LivePage": "state", "PageServer": "server", "serve": "server"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
