"""Bundles whose files are links into a store (DVC, git-annex)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from uflow_edge.runtime.bundle.manifest import Variant


@contextmanager
def loadable_path(graph: Path, variant: Variant) -> Iterator[Path]:
    """The path from which an engine can load a graph during the block.

    onnxruntime and OpenVINO follow links, and refuse weights that lie outside the graph's folder. So the graph and its
    weights, whose digests the manifest holds, are copied into one temporary folder.
    """
    if variant.data is None or not graph.with_name(variant.data).is_symlink():
        yield graph
        return
    # Some systems cannot delete files that are mapped into memory: they stay in the temporary folder.
    with TemporaryDirectory(prefix="uflow-", ignore_cleanup_errors=True) as folder:
        for name in (graph.name, variant.data):
            shutil.copyfile(graph.with_name(name), Path(folder) / name)
        yield Path(folder) / graph.name
