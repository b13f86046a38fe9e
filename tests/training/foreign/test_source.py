"""Files that nobody vouches for are read with bounds, or refused with a reason."""

import hashlib
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.training.foreign.strangers import stranger
from training.foreign import source
from training.foreign.findings import examine
from training.foreign.source import read_graph
from training.graphs.graph import GraphError, parse


def save(model, folder):
    path = folder / "stranger.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(folder, **changes):
    """A graph whose head lies in head.bin beside it."""
    model = stranger()
    tensor = next(t for t in model.graph.initializer if t.name == "head")
    (folder / "head.bin").write_bytes(tensor.raw_data)
    place = {"location": "head.bin", "offset": "0", "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {**place, **changes}.items():
        tensor.external_data.add(key=key, value=value)
    return save(model, folder)


def test_weights_beside_the_graph_are_brought_into_it(tmp_path):
    """What is compared and what is served is one file with all its weights."""
    foreign = read_graph(external(tmp_path))

    whole = next(t for t in stranger().graph.initializer if t.name == "head")
    for model in (foreign.model, parse(foreign.original)):
        head = next(t for t in model.graph.initializer if t.name == "head")
        assert head.data_location == TensorProto.DEFAULT
        assert np.array_equal(numpy_helper.to_array(head), numpy_helper.to_array(whole))


def test_weights_that_share_a_file_are_counted_each(tmp_path, monkeypatch):
    """Each becomes bytes of its own: a file of 20 MB became 8 GB of them."""
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    head = next(t for t in model.graph.initializer if t.name == "head")
    for n in range(100):
        model.graph.initializer.add().CopyFrom(head)
        model.graph.initializer[-1].name = f"head{n}"
    path = save(model, tmp_path)
    bound = path.stat().st_size + (tmp_path / "head.bin").stat().st_size
    monkeypatch.setattr(source, "MAX_GRAPH_BYTES", bound)

    with pytest.raises(GraphError, match=rf"the weights have \d+ .* at most {bound}"):
        read_graph(path)


def test_files_of_weights_are_bounded_together(tmp_path, monkeypatch):
    """However little of each is asked for: all of them are in memory at once."""
    model = onnx.load(external(tmp_path), load_external_data=False)
    head = next(t for t in model.graph.initializer if t.name == "head")
    again = model.graph.initializer.add()
    again.CopyFrom(head)
    again.name = "again"
    again.external_data[0].value = "again.bin"
    for name in ("head.bin", "again.bin"):
        (tmp_path / name).write_bytes(bytes(20_000))
    monkeypatch.setattr(source, "MAX_GRAPH_BYTES", 30_000)

    with pytest.raises(GraphError, match=r"again.bin has 20000 bytes; at most 10000"):
        read_graph(save(model, tmp_path))


def test_the_hashes_are_those_of_the_files(tmp_path):
    """So that whoever has the files can tell that they are the ones."""
    path = external(tmp_path)

    foreign = read_graph(path)

    assert foreign.sha256 == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (path, tmp_path / "head.bin")
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"location": "../secret.bin"}, "outside the folder"),
        ({"location": "/etc/passwd"}, "outside the folder"),
        ({"location": ""}, "outside the folder"),
        ({"location": "sub/../head.bin"}, "outside the folder"),
        ({"location": "other.bin"}, "missing"),
        ({"location": "a\0b"}, "cannot be found"),
        ({"location": "long" * 100}, "cannot be found"),
        ({"offset": "8"}, "ends before"),
        ({"offset": "-8"}, "claim"),
        ({"offset": "x"}, "invalid literal"),
        ({"length": "9"}, "claim"),
        ({"length": "x"}, "invalid literal"),
    ],
)
def test_weights_elsewhere_or_of_another_size_are_refused(tmp_path, changes, complaint):
    """A graph cannot make us read a file that it was not shipped with."""
    (tmp_path.parent / "secret.bin").write_bytes(bytes(4096))

    with pytest.raises(GraphError, match=complaint):
        read_graph(external(tmp_path, **changes))


def store(tmp_path, graph, weights):
    """A snapshot of links to `blobs/HASH`, as a cache keeps files: its graph's path."""
    path = external(tmp_path)
    snapshot = tmp_path / "snapshots" / "main"
    for link, file in ((snapshot / path.name, graph), (snapshot / "head.bin", weights)):
        source = tmp_path / link.name
        file.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        source.rename(file)
        link.symlink_to(file)
    return snapshot / path.name


def test_graph_and_weights_may_be_links_into_one_folder(tmp_path):
    """So the caches of model hubs keep them; who owns the graph owns the weights."""
    blobs = tmp_path / "blobs"

    foreign = read_graph(store(tmp_path, blobs / "0a1b", blobs / "2c3d"))

    head = next(t for t in foreign.model.graph.initializer if t.name == "head")
    assert head.data_location == TensorProto.DEFAULT


def test_a_link_to_weights_apart_from_the_graph_says_how_to_copy_them(tmp_path):
    """A linked graph opens its own folder, and neither those below nor above it."""
    blobs = tmp_path / "blobs"

    with pytest.raises(GraphError, match="cp -L"):
        read_graph(store(tmp_path, blobs / "0a1b", blobs / "private" / "2c3d"))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    """An unpacked archive may hold links to anything that its maker wants to see."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "head.bin").write_bytes(bytes(4096))
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (folder / "head.bin").unlink()
    (folder / "head.bin").symlink_to(secret / "head.bin")

    with pytest.raises(GraphError, match=r"'head\.bin' is a link"):
        read_graph(path)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (helper.make_node("Magic", ["c"], ["x"], domain="evil"), "evil.Magic"),
        (helper.make_node("RandomNormalLike", ["c"], ["x"]), "random"),
        (
            helper.make_node(
                "Loop", ["", "", "c"], ["x"], body=helper.make_graph([], "b", [], [])
            ),
            "control flow",
        ),
    ],
)
def test_operators_that_cannot_be_trusted_are_refused(tmp_path, node, complaint):
    """Custom code, unbounded loops and dice have no place in a bundle."""
    model = stranger()
    model.graph.node.append(node)

    with pytest.raises(GraphError, match=complaint):
        read_graph(save(model, tmp_path))


@pytest.mark.parametrize("kind", ["initializer", "Constant"])
def test_sparse_weights_are_refused(tmp_path, kind):
    """Neither what is found in a graph nor what is added to it knows of them."""
    values = numpy_helper.from_array(np.float32([0.3, 0.2]), "sparse")
    places = numpy_helper.from_array(np.array([0, 2]), "places")
    bias = helper.make_sparse_tensor(values, places, [4])
    model = stranger()
    model.graph.node[-1].input[1] = "sparse"
    if kind == "initializer":
        model.graph.sparse_initializer.append(bias)
    else:
        node = helper.make_node("Constant", [], ["sparse"], sparse_value=bias)
        model.graph.node.insert(0, node)

    with pytest.raises(GraphError, match="sparse weights; make them dense"):
        examine(read_graph(save(model, tmp_path)).model)


VAST = {
    "constant": [helper.make_node("ConstantOfShape", ["sides"], ["x"])],
    "computed": [
        helper.make_node("Mul", ["sides", "sides"], ["squares"]),
        helper.make_node("ConstantOfShape", ["squares"], ["x"]),
    ],
    "of any batch": [helper.make_node("Tile", ["image", "repeats"], ["x"])],
}


@pytest.mark.parametrize("kind", VAST)
def test_a_tensor_of_terabytes_is_refused_before_it_is_computed(tmp_path, kind):
    """A file of some hundred bytes can ask for any amount of memory."""
    sides = [2**10, 2**10] if kind == "computed" else [2**20, 2**20]
    model = stranger()
    for name, value in (("sides", sides), ("repeats", [1, 1, *sides])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.extend(VAST[kind])

    with pytest.raises(GraphError, match="values"):
        read_graph(save(model, tmp_path))


def test_a_file_that_is_missing_is_said_to_be(tmp_path):
    """No stack trace for a typing error."""
    with pytest.raises(GraphError, match="cannot read"):
        read_graph(tmp_path / "none.onnx")


def test_an_invalid_graph_is_refused(tmp_path):
    """A node that reads what nobody computes."""
    model = stranger()
    model.graph.node[0].input[0] = "nowhere"

    with pytest.raises(GraphError, match="not valid ONNX"):
        read_graph(save(model, tmp_path))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damage_of_any_kind_is_a_graph_error(tmp_path, data):
    """Cut off, with bytes changed, or noise: refused or read, and nothing else."""
    whole = stranger().SerializeToString()
    kind = data.draw(st.sampled_from(["cut", "changed", "noise"]))
    if kind == "noise":
        content = data.draw(st.binary(max_size=300))
    elif kind == "cut":
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(whole) - 1))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(content))

    with suppress(GraphError):  # anything else fails the test
        examine(read_graph(path).model)


def test_a_tensor_of_other_values_than_its_shape_says_is_a_graph_error(tmp_path):
    """ONNX's own checker does not count them."""
    model = stranger()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weights["bias"].raw_data += bytes(4)

    with pytest.raises(GraphError, match="the tensor 'bias' cannot be read"):
        examine(read_graph(save(model, tmp_path)).model)


def test_functions_of_the_file_are_unfolded(tmp_path):
    """PyTorch's exporter writes some; quantization wants plain nodes."""
    model = stranger()
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node[-1].output[0] = "half"
    twice = helper.make_node("Twice", ["half"], ["logits"], domain="local")
    model.graph.node.append(twice)

    foreign = read_graph(save(model, tmp_path))

    assert not foreign.model.functions
    assert {node.domain for node in foreign.model.graph.node} <= {"", "ai.onnx"}
    onnx.checker.check_model(foreign.model)


def doubling(depth: int) -> onnx.ModelProto:
    """Functions, each of which calls the one before it twice."""
    model = stranger()
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    for n in range(depth):
        called = (
            {"op_type": f"F{n - 1}", "domain": "local"} if n else {"op_type": "Relu"}
        )
        body = [
            helper.make_node(inputs=[a], outputs=[b], **called) for a, b in ("ab", "bc")
        ]
        model.functions.append(
            helper.make_function("local", f"F{n}", ["a"], ["c"], body, opsets)
        )
    model.opset_import.append(opsets[1])
    model.graph.node[-1].output[0] = "half"
    model.graph.node.append(
        helper.make_node(f"F{depth - 1}", ["half"], ["logits"], domain="local")
    )
    return model


def test_functions_that_unfold_to_a_vast_graph_are_refused(tmp_path):
    """Each doubles it, with some twenty bytes: a kilobyte could have taken days."""
    assert read_graph(save(doubling(4), tmp_path)).model.graph.node
    with pytest.raises(GraphError, match="unfold to more than 50000 nodes"):
        read_graph(save(doubling(40), tmp_path))


def test_a_function_that_calls_itself_is_refused(tmp_path):
    """Before it is unfolded."""
    model = doubling(1)
    for node in model.functions[0].node:
        node.op_type, node.domain = "F0", "local"

    with pytest.raises(GraphError, match="unfold to more than 50000 nodes"):
        read_graph(save(model, tmp_path))
