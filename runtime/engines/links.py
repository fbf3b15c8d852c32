"""Bundles whose files are links into a store (DVC, git-annex)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from uflow_edge.runtime.bundle.manifest import Variant


@contextmanager
def beside_its_weights(graph: Path, variant: Variant) -> Iterator[Path]:
    """Where an engine can load a graph from, for the length of the block.

    onnxruntime and OpenVINO refuse weights that lie outside the graph's folder, and follow links to see where they lie.
    What the manifest vouches for by its digest is therefore copied next to the graph, into a folder that goes again.

    Args:
        graph: the ONNX file in the bundle.
        variant: which graph it is.
    """
    if variant.data is None or not graph.with_name(variant.data).is_symlink():
        yield graph
        return
    # Where files that are mapped into memory cannot be deleted, they are left to the system.
    with TemporaryDirectory(prefix="uflow-", ignore_cleanup_errors=True) as folder:
        for name in (graph.name, variant.data):
            shutil.copyfile(graph.with_name(name), Path(folder) / name)
        yield Path(folder) / graph.name
