"""The rooms: who may import whom, by reading the source and running without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"classifier", "service", "training", "bench", "tests", "deploy", "cli"}
MAY_IMPORT_ROOMS = {
    "classifier": {"classifier"},
    "service": {"classifier", "service"},
    "training": {"classifier", "training"},
}
NEVER = {
    "classifier": {"torch", "onnx", "onnxscript", "fastapi", "starlette", "uvicorn"},
    "service": {"torch", "onnx", "onnxscript", "onnxruntime"},
    "training": {"fastapi", "starlette", "uvicorn"},
}


@pytest.mark.parametrize("room", MAY_IMPORT_ROOMS)
def test_a_room_imports_only_what_the_design_allows(sources, room):
    """Serving needs no torch, and predictions come from one place."""
    files = [source for source in sources if source.room == room]
    outside = (ROOMS - MAY_IMPORT_ROOMS[room]) | NEVER[room]

    crossed = [
        f"{source.path}:{line} imports {name}"
        for source in files
        for line, name in source.imports()
        if name.partition(".")[0] in outside
    ]

    assert files
    assert crossed == []


def test_no_import_is_relative(sources):
    """A dotted name from the root is the same wherever it is read."""
    relative = [
        f"{source.path}:{line}"
        for source in sources
        for line, name in source.imports()
        if name.startswith(".")
    ]

    assert relative == []


def modules_of(sources, *rooms: str) -> list[str]:
    """The dotted names of the modules in these rooms."""
    return [
        ".".join(source.path.with_suffix("").parts).removesuffix(".__init__")
        for source in sources
        if source.room in rooms
    ]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in the root of the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_without(
    blocked: tuple[str, ...], modules: list[str]
) -> subprocess.CompletedProcess[str]:
    """Import the modules where the `blocked` ones cannot be imported."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from importlib import import_module\n"
        f"for name in {modules!r}: import_module(name)\n"
    )
    return python(code)


def test_every_module_that_serves_is_imported_without_torch(sources):
    """The image has neither torch nor onnx nor the training package."""
    modules = ["cli", *modules_of(sources, "classifier", "service")]

    result = run_without(("torch", "onnx", "onnxscript", "training"), modules)

    assert result.returncode == 0, result.stderr


def test_the_block_on_torch_really_blocks():
    """The check above can fail: a module that needs torch does not come through it."""
    result = run_without(("torch",), ["training.networks.efficientnet_lite"])

    assert "import of torch halted" in result.stderr


def test_the_command_line_starts_without_loading_torch_or_a_graph():
    """`linnaeus --help` is not the place to wait for torch or ONNX Runtime."""
    code = (
        "import sys, cli; "
        "print([n for n in ('torch', 'onnxruntime', 'fastapi') if n in sys.modules])"
    )

    result = python(code)

    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_the_packages_have_no_import_cycles(sources):
    """Each module can be understood from those below it, and never from itself."""
    graph = import_graph(sources)

    assert cycles(graph) == []


def test_a_cycle_would_be_found():
    """The check above can fail."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def import_graph(sources) -> dict[str, set[str]]:
    """Module → modules of ours that it imports while it is being imported."""
    names = set(modules_of(sources, "classifier", "service", "training"))
    graph: dict[str, set[str]] = {name: set() for name in names}
    for source in sources:
        [name] = modules_of([source], source.room)
        if name not in names:
            continue
        top = {node.lineno for node in source.tree.body if hasattr(node, "lineno")}
        for line, imported in source.imports():
            parent = imported.rpartition(".")[0]
            target = imported if imported in names else parent
            # `from package import module` inside that package is not a cycle
            if line in top and target in names and target != name:
                graph[name].add(target)
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components with more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            component = [stack.pop()]
            while component[-1] != name:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found
