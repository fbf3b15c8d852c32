"""U-Flow anomaly detectors beside a conveyor belt.

`Inspector` judges frames with a bundle; it is imported when it is first asked for, so that ``import uflow_edge`` costs
nothing.
"""

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uflow_edge.runtime.inspector import Inspector

__all__ = ["Inspector", "__version__"]
__version__ = version("uflow-edge")

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library prints nothing; programs add their handlers


def __getattr__(name: str) -> Any:
    if name == "Inspector":
        from uflow_edge.runtime.inspector import Inspector

        return Inspector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
