"""Weights rounded to FP16 by pictures, and the exports of whitened networks that depend on it."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from uflow_edge.export import bundle as export
from uflow_edge.export.bundle import ExportOptions, export_bundle
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.plans import build_plans
from uflow_edge.export.graphs import weight_rounding
from uflow_edge.export.graphs.sample_pictures import rounding_pictures, stand_ins
from uflow_edge.export.graphs.weight_rounding import round_weights, rounded_by_moments
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.runtime.errors import BadInput
from uflow_edge.training.options import TrainingOptions
from uflow_edge.training.train import Data, train

SIDE = 96


def layer(groups: int, results: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and inputs that are alike: a large mean, little around it, the first of them the bias's 1."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((groups, results, inputs))
    seen = 3 + random.standard_normal((groups, 1, inputs)) + 0.1 * random.standard_normal((groups, 500, inputs))
    seen[..., 0] = 1
    return weights, seen


@pytest.mark.parametrize(("groups", "results", "inputs"), [(1, 5, 300), (7, 1, 10)], ids=["dense", "depthwise"])
def test_products_with_what_was_seen_hardly_change(groups: int, results: int, inputs: int) -> None:
    weights, seen = layer(groups, results, inputs)
    found = rounded_by_moments(weights, seen.swapaxes(1, 2) @ seen / seen.shape[1])
    np.testing.assert_array_equal(found, found.astype(np.float16))
    np.testing.assert_allclose(found, weights, atol=1e-2)

    def error(rounded: np.ndarray) -> float:
        return float(np.sqrt(np.mean(((rounded - weights) @ seen.swapaxes(1, 2)) ** 2)))

    assert error(found) < 0.2 * error(weights.astype(np.float16).astype(np.float64))


def test_blocks_are_a_matter_of_speed(monkeypatch) -> None:
    weights, seen = layer(2, 3, 40)
    moments = seen.swapaxes(1, 2) @ seen / seen.shape[1]
    whole = rounded_by_moments(weights, moments)
    monkeypatch.setattr(weight_rounding, "_BLOCK", 7)
    np.testing.assert_array_equal(rounded_by_moments(weights, moments), whole)


def test_inputs_that_are_always_0_are_rounded_to_the_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((1, 4, 9))
    found = rounded_by_moments(weights, np.zeros((1, 9, 9)))
    np.testing.assert_array_equal(found, weights.astype(np.float16))


def network(text: str) -> ir.Model:
    """Of the nodes given, after a picture's prologue and stem."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (uint8[N,16,16,3] image) => (float[N,40,16,16] y) {'
        "number = Cast<to = 1>(image) planes = Transpose<perm = [0, 3, 1, 2]>(number)"
        "stem = Conv<pads = [1, 1, 1, 1]>(planes, stem_weight) " + text + "}"
    )
    random = np.random.default_rng(0)
    shapes = {
        "stem_weight": (40, 3, 3, 3),
        "wide_weight": (40, 40, 3, 3),
        "bias": (40,),
        "behind_weight": (40, 40, 1, 1),
    }
    values = {name: random.standard_normal(shape).astype(np.float32) / 9 for name, shape in shapes.items()}
    values |= {"norm_weight": np.ones((40, 16, 16), np.float32)}
    for name, value in values.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


LAST = "normal = LayerNormalization<axis = 1>(wide, norm_weight) y = Conv(normal, behind_weight, bias)"


def test_only_convolutions_of_fp16_before_a_normalisation_change() -> None:
    model = network("wide = Conv<pads = [1, 1, 1, 1]>(stem, wide_weight, bias) " + LAST)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    rounded = round_weights(model, stand_ins(16))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    weights = {node.outputs[0].name: node.inputs[1:] for node in rounded.graph if node.op_type == "Conv"}
    for name, half in (("stem", False), ("wide", True), ("y", False)):
        for value in weights[name]:
            numbers = value.const_value.numpy()
            assert numbers.dtype == np.float32
            assert bool((numbers == numbers.astype(np.float16)).all()) == half, (name, value.name)
    assert not any(node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16 for node in rounded.graph)
    assert all(value.uses() for value in rounded.graph.initializers.values())


def test_weights_that_two_layers_read_stay() -> None:
    model = network(
        "first = Conv<pads = [1, 1, 1, 1]>(stem, wide_weight, bias)"
        "wide = Conv<pads = [1, 1, 1, 1]>(first, wide_weight, bias) " + LAST
    )
    exact = model.graph.initializers["wide_weight"].const_value.numpy()
    found = round_weights(model, stand_ins(16)).graph.initializers["wide_weight"].const_value.numpy()
    np.testing.assert_array_equal(found, exact)


def test_pictures_are_spread_over_those_given(tmp_path: Path) -> None:
    for i in range(31):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i:02d}.png")
    found = [int(picture[0, 0, 0]) for picture in rounding_pictures([tmp_path], 4, "squash")]
    assert found == list(range(0, 31, 2))
    with pytest.raises(BadInput):
        rounding_pictures([tmp_path / "absent"], 4, "squash")


def test_stand_ins_differ_in_brightness_contrast_and_colour() -> None:
    pictures = np.stack(rounding_pictures((), 32, "squash")).astype(float)
    np.testing.assert_array_equal(pictures, np.stack(stand_ins(32)))
    assert np.ptp(pictures.mean(axis=(1, 2, 3))) > 60
    spreads = pictures.std(axis=(1, 2, 3))
    assert spreads.max() > 3 * spreads.min()
    grey = np.ptp(pictures, axis=3).max(axis=(1, 2)) == 0
    assert grey.any() and not grey.all()


@pytest.fixture(scope="module")
def whitened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network whitened on 48 pictures of gravel, and a folder of 16 others."""
    from skimage import data

    folder, gravel = tmp_path_factory.mktemp("whitened"), data.gravel()
    for i in range(64):
        y, x = i // 8 * 59, i % 8 * 59
        part = folder / ("train/good" if i % 4 else "others")
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gravel[y : y + SIDE, x : x + SIDE]).save(part / f"{i:02d}.png")
    architecture = Architecture.default("efficientnet_lite0", SIDE, 2)
    checkpoint = folder / "gravel.ckpt"
    train(Data(folder, standardization="whiten"), architecture, TrainingOptions(epochs=1), checkpoint)
    return checkpoint, folder / "others"


@pytest.mark.slow
def test_fp16_of_a_whitened_network_keeps_its_bound(whitened, tmp_path: Path, monkeypatch) -> None:
    checkpoint, others = whitened
    options = ExportOptions(parity_images=(others,))
    exported = export_bundle(checkpoint, tmp_path / "a", options)
    bundle, (_, half) = exported.bundle, exported.variants
    assert half.written
    assert max(max(parity.energy_error) for parity in half.parities) < 0.6 * half.parities[0].bound
    built, (plan,) = build_plans(bundle, ["fp16"], PlanOptions("rtx", compute_capabilities=("8.9",)))
    assert (built.folder / plan.plan.file).is_file()

    monkeypatch.setattr(export, "round_weights", lambda graph, pictures: graph)
    _, half = export_bundle(checkpoint, tmp_path / "b", options).variants
    assert not half.written  # which is what rounding is for
