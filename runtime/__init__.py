"""Frames in, verdicts out, without torch.

    from uflow_edge.runtime import Inspector

    inspector = Inspector.load("bottle.uflow")
    verdict = inspector.inspect(frame_bgr)

Importing this package imports none of what it runs on; each name loads its own module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uflow_edge.runtime.bundle.folder import Bundle
    from uflow_edge.runtime.inspector import Inspector
    from uflow_edge.runtime.verdict import Verdict

__all__ = ["Bundle", "Inspector", "Verdict"]

_HOMES = {"Bundle": "bundle.folder", "Inspector": "inspector", "Verdict": "verdict"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
