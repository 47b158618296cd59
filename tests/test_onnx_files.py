"""ONNX files as other programs write them: weights in files beside them, other types, channels, sizes and batches."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from resolute import load, load_scorer
from resolute.errors import CheckpointError, ImageError, ModelWarning

SHAPE = ("b", 3, "h", "w")


def larger(name="scaled", out="y"):
    options = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return helper.make_node("Resize", [name, "", "twice"], [out], **options)


LARGER = (larger(),)


def graph(nodes=LARGER, *, shape=SHAPE, kind=TensorProto.FLOAT, gain=1.0, opset=17, inputs=(), outputs=("y",)):
    """An image times ``gain``, as ``scaled``, and what ``nodes`` make of it."""
    images = helper.make_tensor_value_info("x", kind, shape)
    weights = np.full(300, gain, dtype=helper.tensor_dtype_to_np_dtype(kind))
    one = numpy_helper.from_array(np.array([0]), "one")
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["weights", "one"], ["gain"]),
                helper.make_node("Mul", ["x", "gain"], ["scaled"]),
                *nodes,
            ],
            "small",
            [images, *[helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in inputs]],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [
                numpy_helper.from_array(weights, "weights"),
                one,
                numpy_helper.from_array(np.float32([1, 1, 2, 2]), "twice"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    for value in model.graph.output:
        value.type.tensor_type.elem_type = kind
    return model


def beside(folder, gain, name="model.onnx", **options):
    """Write a model whose weights lie beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        graph(gain=gain, **options),
        folder / name,
        save_as_external_data=True,
        location=f"{name}.data",
        size_threshold=200,
    )
    return folder / name


def twice(x, gain=1.0):
    return F.interpolate(x * gain, scale_factor=2)


# Weights in other files.


def test_weights_beside_a_file_are_those_of_its_folder_whatever_the_working_directory(tmp_path, monkeypatch):
    first, second = beside(tmp_path / "a", 1.0), beside(tmp_path / "b", 0.5)
    assert first.read_bytes() == second.read_bytes()
    x = torch.rand(2, 3, 9, 7)
    for folder, path in (
        (tmp_path, "a/model.onnx"),
        (tmp_path / "b", "../a/model.onnx"),
        (tmp_path / "a", "model.onnx"),
    ):
        monkeypatch.chdir(folder)
        torch.testing.assert_close(load(path)(x), twice(x))
    torch.testing.assert_close(load("../b/model.onnx")(x), twice(x, 0.5))


def test_the_sha256_is_of_graph_and_weights_and_not_of_where_they_lie(tmp_path):
    paths = beside(tmp_path / "a", 1.0), beside(tmp_path / "b", 0.5), beside(tmp_path / "c" / "d", 1.0)
    one, other, again = (load(path).card.sha256 for path in paths)
    assert one == again != other
    assert len(one) == 64
    assert load(f"{paths[0]}#sha256={one}").card.sha256 == one
    with pytest.raises(CheckpointError, match=f"model.onnx .*{other}"):
        load(f"{paths[1]}#sha256={one}")


def test_missing_weights_are_named(tmp_path):
    path = beside(tmp_path, 1.0)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(CheckpointError, match=r"model\.onnx .*model\.onnx\.data.* one folder"):
        load(path)


def test_weights_that_are_too_short_are_told(tmp_path):
    path = beside(tmp_path, 1.0)
    (tmp_path / "model.onnx.data").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match=r"model\.onnx .* weights"):
        load(path)


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/passwd", "a/../../x", r"..\x", r"C:\x", r"\\host\x"])
def test_weights_outside_of_the_folder_are_refused(tmp_path, location):
    path = beside(tmp_path / "inner", 1.0)
    (tmp_path / "model.onnx.data").write_bytes((tmp_path / "inner" / "model.onnx.data").read_bytes())
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"model\.onnx .*outside of its own folder"):
        load(path)


def test_weights_of_nodes_count_too(tmp_path):
    """They may be constants of nodes, also within branches."""
    model = onnx.load(beside(tmp_path, 1.0), load_external_data=False)
    (tensor,) = [one for one in model.graph.initializer if one.name == "weights"]
    node = helper.make_node("Constant", [], ["weights"], value=tensor)
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, node)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    before = load(tmp_path / "model.onnx").card.sha256
    data = tmp_path / "model.onnx.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert load(tmp_path / "model.onnx").card.sha256 != before


def test_a_metric_with_weights_beside_it(tmp_path, monkeypatch):
    nodes = [helper.make_node("ReduceMean", ["scaled"], ["y"], axes=[1, 2, 3])]
    path = beside(tmp_path / "a", 0.5, nodes=nodes)
    monkeypatch.chdir(tmp_path)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_scorer(path)(x), 0.5 * x.mean(dim=(1, 2, 3)))


# Types, channels, sizes and batches.

BLOCKS = (
    helper.make_node("SpaceToDepth", ["scaled"], ["deep"], blocksize=8),
    helper.make_node("DepthToSpace", ["deep"], ["back"], blocksize=8),
    larger("back"),
)
ALONE = (
    helper.make_node("Squeeze", ["scaled", "one"], ["bare"]),
    helper.make_node("Unsqueeze", ["bare", "one"], ["again"]),
    larger("again"),
)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": TensorProto.FLOAT16},
        {"shape": ("b", 1, "h", "w")},
        {"shape": (1, 1, "h", "w")},
        {"shape": ("b", None, "h", "w")},
        {"nodes": BLOCKS},
        {"nodes": BLOCKS, "shape": ("b", 1, "h", "w"), "kind": TensorProto.FLOAT16},
        {"shape": (2, 3, "h", "w")},
        {"nodes": ALONE},
        {"shape": ("b", 3, 9, "w")},
        {"outputs": ("scaled", "y")},
    ],
    ids=[
        "float16",
        "grey",
        "grey, batch",
        "any channels",
        "multiple",
        "all of it",
        "batch of two",
        "batch of one",
        "height",
        "outputs",
    ],
)
def test_files_of_other_types_channels_sizes_and_batches_run(tmp_path, options):
    if "outputs" in options:
        options = {
            **options,
            "outputs": ("sum", "y"),
            "nodes": (*LARGER, helper.make_node("ReduceSum", ["scaled"], ["sum"])),
        }
    onnx.save(graph(**options), tmp_path / "model.onnx")
    model, x = load(tmp_path / "model.onnx"), torch.rand(3, 3, 9, 13)
    assert model.scale == 2
    tolerance = 1e-3 if options.get("kind") == TensorProto.FLOAT16 else 1e-6
    torch.testing.assert_close(model(x), twice(x), rtol=0, atol=tolerance)
    assert model(x).dtype == torch.float32


def test_a_file_of_one_channel_that_is_told_by_no_shape_gets_one(tmp_path):
    kernel = numpy_helper.from_array(np.float32([[[[1]]]]), "kernel")
    nodes = (helper.make_node("Conv", ["scaled", "kernel"], ["seen"]), larger("seen"))
    model = graph(nodes, shape=("b", "c", "h", "w"))
    model.graph.initializer.append(kernel)
    onnx.save(model, tmp_path / "model.onnx")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(load(tmp_path / "model.onnx")(x), twice(x))


def test_a_side_that_is_fixed_says_so(tmp_path):
    onnx.save(graph(shape=(1, 3, 9, "w")), tmp_path / "model.onnx")
    with pytest.raises(ImageError, match=r"any x 9 .*12 x 10"):
        load(tmp_path / "model.onnx")(torch.rand(1, 3, 10, 12))


def test_a_file_on_another_range_warns_with_the_remedy(tmp_path):
    onnx.save(graph(gain=255.0), tmp_path / "model.onnx")
    with pytest.warns(ModelWarning, match="1:255"):
        load(tmp_path / "model.onnx")
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load(f"{tmp_path / 'model.onnx'}#range=1:255")(x), twice(x))


WHOLE = (larger(out="big"), helper.make_node("Cast", ["big"], ["y"], to=2))
TWO = (*LARGER, helper.make_node("Identity", ["y"], ["z"]))
ADDED = (helper.make_node("Add", ["scaled", "sigma"], ["more"]), larger("more"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": TensorProto.INT32}, r"int32.*float32"),
        ({"shape": ("b", "h", "w", 3)}, "channels last"),
        ({"shape": (1, 64, 64, 1)}, "channels last"),
        ({"shape": ("b", 4, "h", "w")}, "one input"),
        ({"nodes": (helper.make_node("Identity", ["scaled"], ["y"]),), "shape": (3, "h", "w")}, "one input"),
        ({"nodes": ADDED, "inputs": ("sigma",)}, "sigma"),
        ({"nodes": TWO, "outputs": ("y", "z")}, "2 images"),
        ({"nodes": (helper.make_node("Flatten", ["scaled"], ["y"]),)}, "no larger image"),
        ({"nodes": (helper.make_node("Sharpen", ["scaled"], ["y"]),)}, "Sharpen"),
        ({"nodes": (helper.make_node("Sharpen", ["scaled"], ["y"], domain="my.ops"),)}, "my.ops"),
        ({"opset": 99}, "[Oo]pset"),
    ],
    ids=[
        "int32",
        "nhwc",
        "nhwc grey",
        "rgba",
        "one image",
        "two inputs",
        "two images",
        "flat",
        "operator",
        "domain",
        "opset",
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, options, message):
    onnx.save(graph(**options), tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "model.onnx")
    said = str(caught.value)
    assert said.startswith("model.onnx")
    assert "\n" not in said
    assert "/onnxruntime_src/" not in said


def test_an_output_of_whole_numbers_is_refused(tmp_path):
    model = graph(WHOLE)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"model\.onnx .*uint8.*float32"):
        load(tmp_path / "model.onnx")
