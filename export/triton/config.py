"""Writes the ``config.pbtxt`` of each model of a Triton repository, in protobuf's text format.

The fields are those of `ModelConfig` in Triton's ``model_config.proto``; a test reads them with Triton's own schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from uflow_edge.runtime.bundle.manifest import BatchRange, Tensor
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.storage.strict_json import to_json

Value: TypeAlias = "str | int | Message | Sequence[Value]"
Message: TypeAlias = Mapping[str, Value]
Platform: TypeAlias = Literal["onnxruntime_onnx", "tensorrt_plan"]

NETWORK, INSPECT = "_network", "_inspect"
_QUEUE_DELAY_MICROSECONDS = 1000  # how long a picture may wait for others to share a run
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


class Enum(str):
    """A name that the schema defines; it is written without quotes."""


@dataclass(frozen=True, slots=True)
class RepositoryModels:
    """The three models of a bundle.

    Attributes:
        name: of the bundle, from which the models' names are derived.
        sha256: of its file, written into every config.
        batch: pictures per run; Triton prefers its optimum and its maximum.
    """

    name: str
    manifest: UFlowManifest
    platform: Platform
    sha256: str
    batch: BatchRange

    def network(self) -> Message:
        """Pictures in, latent statistics out; requests of all clients share its runs."""
        signature = self.manifest.signature
        kind = "KIND_GPU" if self.platform == "tensorrt_plan" else "KIND_AUTO"
        return {
            "name": self.name + NETWORK,
            "platform": self.platform,
            **self._common(_fields(signature.inputs), _fields(signature.outputs)),
            "dynamic_batching": {
                "preferred_batch_size": sorted({self.batch.optimum, self.batch.maximum}),
                "max_queue_delay_microseconds": _QUEUE_DELAY_MICROSECONDS,
            },
            "instance_group": [{"count": 1, "kind": Enum(kind)}],
        }

    def judge(self) -> Message:
        """Energies in, verdicts out."""
        return {
            "name": self.name,
            "backend": "python",
            **self._common(_fields(self._energies), self._verdict),
            "instance_group": [{"count": 1, "kind": Enum("KIND_CPU")}],
        }

    def ensemble(self) -> Message:
        """Pictures in, verdicts out."""
        pictures = _fields(self.manifest.signature.inputs)
        energies = [energy.name for energy in self._energies]
        steps = [
            _step(self.name + NETWORK, _names(pictures), energies),
            _step(self.name, energies, _names(self._verdict)),
        ]
        return {
            "name": self.name + INSPECT,
            "platform": "ensemble",
            **self._common(pictures, self._verdict),
            "ensemble_scheduling": {"step": steps},
        }

    @property
    def _energies(self) -> tuple[Tensor, ...]:
        return self.manifest.signature.outputs[: len(self.manifest.scales)]

    @property
    def _verdict(self) -> list[Message]:
        side = self.manifest.input_size
        return [
            _field("score", "TYPE_FP32", [1]),
            _field("anomalous", "TYPE_BOOL", [1]),
            _field("score_map", "TYPE_FP32", [side, side]),
            _field("mask", "TYPE_BOOL", [side, side]),
            _field("regions", "TYPE_STRING", [1]),
        ]

    def _common(self, inputs: Sequence[Message], outputs: Sequence[Message]) -> Message:
        notes = {"graph_sha256": self.sha256, "checkpoint_sha256": self.manifest.source.sha256}
        return {
            "max_batch_size": self.batch.maximum,
            "input": inputs,
            "output": outputs,
            "parameters": [{"key": key, "value": {"string_value": value}} for key, value in notes.items()],
        }


def _step(model: str, inputs: Sequence[str], outputs: Sequence[str]) -> Message:
    """Tensors between steps have the same names as in the models."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": name, "value": name} for name in inputs],
        "output_map": [{"key": name, "value": name} for name in outputs],
    }


def _fields(tensors: Sequence[Tensor]) -> list[Message]:
    return [_field(tensor.name, _TYPES[tensor.dtype], tensor.shape) for tensor in tensors]


def _field(name: str, data_type: str, dims: Sequence[int]) -> Message:
    return {"name": name, "data_type": Enum(data_type), "dims": list(dims)}


def _names(fields: Sequence[Message]) -> list[str]:
    return [str(field["name"]) for field in fields]


def text_format(message: Message) -> str:
    """As protobuf reads it: a line for each scalar, a block for each message, and repeated fields one after another."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message, indent: str = "") -> Iterator[str]:
    for name, value in message.items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(one, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {one if isinstance(one, Enum | int) else to_json(one)}"
