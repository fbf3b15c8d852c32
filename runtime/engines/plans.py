"""Find the TensorRT plan of a bundle that can run on this machine, or the reason why each cannot."""

from collections.abc import Iterator, Sequence

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Manifest, Plan, Precision
from uflow_edge.runtime.engines.tensorrt_library import TITLES, load_library
from uflow_edge.runtime.errors import MissingDependency


def find_plan(bundle: Bundle[Manifest], precisions: Sequence[Precision], compute_capability: str) -> Plan:
    """The plan for this machine, in the first of these precisions that has one.

    Args:
        precisions: accepted precisions, the best first.
        compute_capability: of the GPU, such as ``8.7``.

    Raises:
        MissingDependency: no plan fits; the message gives the reason for each, and says how to build one.
    """
    reasons = []
    for plan in plans_in(bundle, precisions):
        reason = _misfit(bundle.manifest, plan, compute_capability)
        if reason is None:
            return plan
        reasons.append(f"{plan.file}: {reason}")
    raise MissingDependency(f"{'; '.join(reasons) or 'the bundle has no such TensorRT plan'}. {how_to_build(bundle)}")


def plans_in(bundle: Bundle[Manifest], precisions: Sequence[Precision]) -> Iterator[Plan]:
    """All plans in these precisions, in the order of the precisions."""
    for precision in precisions:
        for plan in bundle.manifest.plans:
            if precision_of(bundle, plan) == precision:
                yield plan


def precision_of(bundle: Bundle[Manifest], plan: Plan) -> Precision | None:
    """Precision of the graph that a plan was built from; None if the bundle no longer has this graph."""
    return next((variant.precision for variant in bundle.manifest.variants if variant.file == plan.graph), None)


def how_to_build(bundle: Bundle[Manifest]) -> str:
    """The command that builds a plan for this machine, as a sentence."""
    return f"Build an engine for this machine with: uflow-export --bundle {bundle.folder} --trt"


def _misfit(manifest: Manifest, plan: Plan, compute_capability: str) -> str | None:
    built_from = next(variant for variant in manifest.variants if variant.file == plan.graph)
    if plan.graph_sha256 != manifest.graph_sha256(built_from):
        return f"built from another {plan.graph}"
    if compute_capability not in plan.compute_capabilities:
        built_for = ", ".join(plan.compute_capabilities)
        return f"built for GPUs of compute capability {built_for}, this one has {compute_capability}"
    try:
        version = load_library(plan.library).__version__
    except MissingDependency as error:
        return str(error).removesuffix(".")
    if plan.version == version:
        return None
    if "version-compatible" in plan.options and _runs_later(plan.version, version):
        return None
    return f"built by {TITLES[plan.library]} {plan.version}, but {version} is installed"


def _runs_later(built: str, here: str) -> bool:
    """Version-compatible plans run in later releases of the same major version."""
    built_numbers, numbers = ([int(part) for part in text.split(".") if part.isdigit()] for text in (built, here))
    return built_numbers[:1] == numbers[:1] and built_numbers <= numbers
