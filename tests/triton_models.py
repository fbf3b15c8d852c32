"""A repository of Triton, read with Triton's own schema, and changed bundles to write it from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from extras import extra
from uflow_edge.runtime.bundle.folder import Bundle, write_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale
from uflow_edge.runtime.nfa.null_tail import TailLaw
from uflow_edge.runtime.storage.files import sha256

schema = extra("tritonclient.grpc.model_config_pb2")

TAIL = TailLaw(6.0, 0.2, 0.3, 4.0, 0.02, 0.2, 0.5)


def parsed(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), schema.ModelConfig())


def signature(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {one.name: (schema.DataType.Name(one.data_type), tuple(one.dims)) for one in tensors}


def save_changed(bundle: Bundle[UFlowManifest], **changes: Any) -> Bundle[UFlowManifest]:
    write_manifest(bundle.folder, replace(bundle.manifest, **changes))
    return Bundle.load(bundle.folder, UFlowManifest)


def with_null_model(bundle: Bundle[UFlowManifest], name: str = "null_model-a.npz") -> Bundle[UFlowManifest]:
    gains = [np.full((s.height, s.width), s.channels, np.float32) for s in bundle.manifest.scales]
    scales = tuple(
        NullScale(gain, ImageGain(0.5, 0.5, 2.0), TAIL, np.array([0.5, 0.7]), np.array([1.5, 1.0])) for gain in gains
    )
    NullModel(scales, 40).save(bundle.folder / name)
    files = {**bundle.manifest.files, name: sha256(bundle.folder / name)}
    return save_changed(bundle, null_model=name, files=files)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
