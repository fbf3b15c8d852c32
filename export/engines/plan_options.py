"""Options of an engine build; light to import, for the command line."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from uflow_edge.runtime.bundle.manifest import BatchRange, Variant
from uflow_edge.runtime.errors import UsageError

Target: TypeAlias = Literal["local", "rtx"]

RTX_COMPUTE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""Both Amperes, Ada and Blackwell, in one engine. TensorRT-RTX multiplies no FP32 matrices on Turing (7.5)."""

ON_THE_JETSON = (
    "TensorRT-RTX has no Jetson target. For a Jetson copy the bundle there and turn its ONNX graphs into engines with: "
    "uflow-export --bundle bottle.uflow --trt (it needs no torch; JetPack brings TensorRT, which a virtual environment "
    "made with --system-site-packages sees)"
)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of an engine build.

    Attributes:
        target: ``local``: TensorRT, for the GPU of this machine; ``rtx``: TensorRT-RTX, for GPUs of other machines,
            built ahead of time without a GPU.
        batch: images per run; None: the graph's own if it is fixed, else the default range.
        workspace_mebibytes: scratch memory on the GPU that the engine may use.
        version_compatible: the plan also runs in later versions of TensorRT, but is larger and slower.
        refittable: weights can be replaced without a new build, but the engine is slower.
        dla_core: index of the deep learning accelerator to run on; the GPU runs what it cannot. None: the GPU alone.
        compute_capabilities: of the GPUs that an ``rtx`` plan runs on.

    Raises:
        UsageError: on construction, for a combination that cannot be built.
    """

    target: Target = "local"
    batch: BatchRange | None = None
    workspace_mebibytes: int = 1024
    version_compatible: bool = False
    refittable: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[str, ...] = RTX_COMPUTE_CAPABILITIES

    def __post_init__(self) -> None:
        if self.workspace_mebibytes < 1:
            raise UsageError(f"workspace of {self.workspace_mebibytes} MiB: expected 1 or more")
        if self.target == "rtx":
            if self.dla_core is not None:
                raise UsageError(f"an rtx engine has no DLA core. {ON_THE_JETSON}")
            if self.version_compatible or self.refittable:
                # Its builder needs a lean runtime that it does not ship, and a GPU to compile refits on.
                raise UsageError("an rtx engine can be neither version-compatible nor refittable; build with local")
            wrong = [text for text in self.compute_capabilities if not re.fullmatch(r"\d+\.\d", text)]
            if wrong or not self.compute_capabilities:
                raise UsageError(f"compute capabilities {', '.join(wrong)}: expected one or more such as 8.6")

    def batch_for(self, variant: Variant) -> BatchRange:
        """Images per run of an engine for this graph.

        Raises:
            UsageError: the graph or the DLA does not support the requested range.
        """
        fixed = variant.batch and BatchRange(variant.batch, variant.batch, variant.batch)
        batch = self.batch or fixed or BatchRange()
        if fixed and batch != fixed:
            raise UsageError(f"{variant.file} is fixed to batch {fixed}, not {batch}; export it with --batch {batch}")
        if self.dla_core is not None and batch.fixed is None:
            raise UsageError(f"a DLA takes one batch size only, not {batch}; give --batch a single number")
        return batch

    def __str__(self) -> str:
        """The options that the other fields of a `Plan` do not state."""
        parts = [f"workspace {self.workspace_mebibytes} MiB"]
        parts += ["version-compatible"] if self.version_compatible else []
        parts += ["refittable"] if self.refittable else []
        parts += [] if self.dla_core is None else [f"DLA core {self.dla_core}"]
        return ", ".join(parts)
