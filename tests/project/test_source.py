"""The source as a reader meets it: small pieces, telling names, no private paths."""

import ast
import re

import pytest

MAX_FILE_LINES = 300  # 250 is the aim; a test that cries at 251 teaches to cut badly
MAX_FUNCTION_LINES = 50  # of its body: a command's signature is a table of options
MAX_FILE_BYTES = 1_000_000  # beyond it: only graphs of bundles and the data they need
LARGE = (".onnx", ".npz")
MAX_LARGE_BYTES = 30_000_000

# Names that say nothing about what is inside.
EMPTY_MODULES = {"utils", "util", "helpers", "common", "core", "manager", "misc"}
EMPTY_VERBS = re.compile(r"^_?(get|do|process|handle|manage)_")
CHOSEN_BY_FRAMEWORKS = {
    "get_command",  # click.Group
    "get_next",  # onnxruntime.quantization.CalibrationDataReader
    "handle_exit",  # uvicorn.Server
}

# A package's docstring is its map: `name  what`, `one, two  what`, or `1. step  names`.
MAPPED_ROOMS = {"service", "training"}
MAP_ROW = re.compile(r"^(?:\d\. \w+ {2,}(.+)|(\w+(?:, \w+)*) {2,}\S)", re.MULTILINE)

# A folder of somebody's machine; what a container or every Unix has is no such folder.
PRIVATE_PATH = re.compile(r"(?<![\w.~/:-])/(?:home|root|Users|work)/\w")


def own(sources):
    """What readers read first: everything but the tests, whose tables may be long."""
    return [source for source in sources if source.room != "tests"]


def test_files_are_short(sources):
    """A newcomer finds a line's home by the name of its file."""
    long = [
        f"{source.path}: {source.text.count(chr(10))} lines"
        for source in own(sources)
        if source.text.count("\n") > MAX_FILE_LINES
    ]

    assert long == []


def functions(source) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of the file, however deep."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(source.tree) if isinstance(node, kinds)]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines below signature and docstring."""
    first = node.body[1 if ast.get_docstring(node) and node.body[1:] else 0]
    return node.end_lineno - first.lineno + 1


def test_functions_fit_on_a_screen(sources):
    """The tail of long functions is what makes a code base ugly."""
    long = [
        f"{source.path}:{node.lineno} {node.name}: {lines}"
        for source in own(sources)
        for node in functions(source)
        if (lines := body_lines(node)) > MAX_FUNCTION_LINES
    ]

    assert long == []


def test_every_module_says_what_it_is(sources):
    """The first line of a module is its arrow or its noun."""
    silent = [
        str(source.path)
        for source in sources
        if source.text.strip() and not ast.get_docstring(source.tree)
    ]

    assert silent == []


def packages(sources):
    """Those whose first page is a map."""
    return [
        source
        for source in sources
        if source.path.name == "__init__.py" and source.room in MAPPED_ROOMS
    ]


def mapped(package) -> set[str]:
    """The names in the columns of a package's docstring."""
    rows = MAP_ROW.findall(ast.get_docstring(package.tree))
    return {name for row in rows for name in re.findall(r"\w+", "".join(row))}


def test_the_map_of_a_package_shows_all_that_is_in_it(sources):
    """Thirty flat files are found by whoever reads one page, if that page is whole."""
    lost = []
    for package in packages(sources):
        folder = package.path.parent
        inside = {
            source.path.relative_to(folder).parts[0].removesuffix(".py")
            for source in sources
            if folder in source.path.parents
        }
        missing = inside - mapped(package) - {"__init__"}
        lost += [f"{folder}/{name}" for name in sorted(missing)]

    assert packages(sources)
    assert lost == []


def test_a_map_shows_nothing_that_is_gone(sources, repository):
    """Who looks for it would look in vain."""
    shown = [
        package.path.parent / name
        for package in packages(sources)
        for name in sorted(mapped(package))
    ]
    gone = [
        str(path)
        for path in shown
        if not (repository / path).is_dir()
        and not (repository / path).with_suffix(".py").is_file()
    ]

    assert gone == []


def test_names_say_something(sources):
    """`utils.process_data` is where code goes that nobody finds again."""
    empty = [str(s.path) for s in sources if s.path.stem in EMPTY_MODULES]
    empty += [
        f"{source.path}:{node.lineno} {node.name}"
        for source in own(sources)
        for node in functions(source)
        if EMPTY_VERBS.match(node.name) and node.name not in CHOSEN_BY_FRAMEWORKS
    ]

    assert empty == []


def texts(repository, tracked):
    """(path, text) of every file of the project that is text."""
    for path in tracked:
        try:
            yield path, (repository / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_names_a_folder_of_one_machine(repository, tracked):
    """What works only where it was written does not work."""
    named = [
        f"{path}:{number} {line.strip()[:80]}"
        for path, text in texts(repository, tracked)
        for number, line in enumerate(text.splitlines(), 1)
        if PRIVATE_PATH.search(line)
    ]

    assert named == []


@pytest.mark.parametrize("top", ["home", "root", "Users", "work"])
def test_a_private_path_would_be_found(top):
    """The check above can fail."""
    assert PRIVATE_PATH.search(f"see /{top}/ada/photos")
    assert PRIVATE_PATH.search(f'"/{top}/x.onnx"')


def test_no_file_is_too_large_to_clone(repository, tracked):
    """Weights are in bundles; data sets, checkpoints and recordings stay outside."""
    large = [
        f"{path}: {size:,} bytes"
        for path in tracked
        if (size := (repository / path).stat().st_size)
        > (MAX_LARGE_BYTES if path.suffix in LARGE else MAX_FILE_BYTES)
    ]

    assert large == []
