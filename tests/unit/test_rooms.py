"""The rooms: who may import whom, what stays at the top, who may know a library's private parts, who stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import AbstractSet, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

import pytest

from tests.support import ROOT

#: Who may import whom; docs/architecture.md has the same table. Upper may import lower, never back. A name with a dot
#: is one file of a room. People and the decoder's formats reach a client in its .draw() and .to_*() alone.
MAY_IMPORT = {
    "__main__": "cli process observe",
    "__init__": "app",
    "tasks": "app video process broker notify jobs people",
    "cli": "client video process broker notify observe jobs device engine images storage people pose",
    "app": "process broker notify observe jobs storage",
    "client": "broker.send broker.results notify.pending observe.tracing jobs storage people pose",
    "process": "video device engine images storage pose people jobs observe",
    "broker": "jobs",
    "notify": "jobs",
    "observe": "device jobs",
    "device": "engine",
    "models": "engine pose",
    "images": "storage.s3",
    "video": "people pose",
    "people": "pose",
    "pose": "",
    "engine": "",
    "storage": "",
    "jobs": "",
    "celeryconfig": "",
}
#: What everything may use; these import no room.
COMMON = ("settings", "errors", "contract", "video_contract", "logs", "servers", "files", "children", "public_http")
#: The files at the top of worker/; all else is in rooms.
TOP = {f"{name}.py" for name in ("__init__", "__main__", "app", "people", *COMMON)}

FILES = sorted(
    path.relative_to(ROOT)
    for path in (*(ROOT / "worker").rglob("*.py"), *(ROOT / "models").rglob("*.py"), ROOT / "celeryconfig.py")
    if not path.name.endswith("_pb2.py")
)


class Import(NamedTuple):
    """One module that a file names.

    Attributes:
        within: the functions that it stands in, the outermost first; none of them: it is loaded with the file.
    """

    file: Path
    module: str
    within: Tuple[str, ...]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def _imports(file: Path) -> Iterator[Import]:
    """All imports of a file, also those in its functions."""

    def walk(node: ast.AST, within: Tuple[str, ...]) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, within) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by dots"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(file, whole if _is_module(whole) else str(node.module), within)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            within = (*within, node.name)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, within)

    yield from walk(ast.parse((ROOT / file).read_text(encoding="utf-8")), ())


IMPORTS: List[Import] = [one for file in FILES for one in _imports(file)]


def _room(dotted: str) -> Optional[str]:
    """The room of a module of ours; None: it is another's."""
    first, _, rest = dotted.partition(".")
    if first in ("models", "celeryconfig"):
        return first
    if first == "worker":
        return rest.partition(".")[0] or "__init__"
    return None


def _room_of(file: Path) -> str:
    return str(_room(".".join(file.with_suffix("").parts)))


def _allowed(one: Import) -> bool:
    """Whether the table lets `one` be."""
    room, target = _room_of(one.file), str(_room(one.module))
    if room == target or target in COMMON:
        return True
    if room in COMMON:
        return False
    if room == "client" and target in ("people", "pose"):
        return any(name == "draw" or name.startswith("to_") for name in one.within)
    name = one.module.partition(".")[2] if one.module.startswith("worker.") else one.module
    return any(name == may or name.startswith(f"{may}.") for may in MAY_IMPORT[room].split())


OURS = [one for one in IMPORTS if _room(one.module) is not None]


def test_every_file_is_in_a_room_of_the_table() -> None:
    assert {_room_of(file) for file in FILES} - {*MAY_IMPORT, *COMMON} == set()


@pytest.mark.parametrize("room", [*MAY_IMPORT, *COMMON])
def test_a_room_imports_what_the_table_lets_it(room: str) -> None:
    mine = [one for one in OURS if _room_of(one.file) == room]
    assert [(str(one.file), one.module) for one in mine if not _allowed(one)] == []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_is_imported_by_those_that_the_table_names(room: str) -> None:
    may = {other for other, row in MAY_IMPORT.items() for name in row.split() if name.partition(".")[0] == room}
    others = [one for one in OURS if _room(one.module) == room and _room_of(one.file) not in (room, *may)]
    assert [(str(one.file), one.module) for one in others] == []


def test_the_table_has_no_circle() -> None:
    below = {room: {name.partition(".")[0] for name in row.split()} for room, row in MAY_IMPORT.items()}
    assert _in_circles(below) == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    """When it is loaded: what a function imports comes later, and only has to keep to the table."""
    by_name = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): str(file) for file in FILES}
    below: Dict[str, Set[str]] = {str(file): set() for file in FILES}
    for one in OURS:
        if not one.within and one.module in by_name:
            below[str(one.file)].add(by_name[one.module])
    assert _in_circles(below) == []


def _in_circles(below: Mapping[str, AbstractSet[str]]) -> List[str]:
    """Those that are below themselves, or between two that are."""
    left = {name: set(names) - {name} for name, names in below.items()}
    while True:
        above = set().union(*left.values())
        ends = [name for name, names in left.items() if not names & set(left) or name not in above]
        if not ends:
            return sorted(left)
        left = {name: names - set(ends) for name, names in left.items() if name not in ends}


def test_nothing_else_stands_at_the_top() -> None:
    there = {path.name for path in (ROOT / "worker").glob("*.py")}
    assert there - TOP == set()
    assert len(TOP) == 13


#: What Celery, kombu, billiard and redis-py document for everybody. All else of them is theirs.
PUBLIC = {
    *("celery", "celery.states", "celery.exceptions", "celery.signals", "celery.bootsteps", "celery.utils.log"),
    *("celery.result", "celery.app.task", "kombu", "kombu.exceptions", "kombu.serialization"),
    *("redis", "redis.asyncio", "redis.exceptions", "redis.sentinel"),
}


def test_only_the_broker_room_names_private_modules_of_celery_and_its_libraries() -> None:
    theirs = [one for one in IMPORTS if one.module.partition(".")[0] in ("celery", "kombu", "billiard", "redis")]
    assert len(theirs) > 20
    private = {
        (str(one.file), one.module) for one in theirs if one.module not in PUBLIC and _room_of(one.file) != "broker"
    }
    assert private == set()


#: Whose private attributes are not meant here: of the interpreter, of PyTorch, of Pillow.
OTHERS = ("os.", "torch.", "picture.")


def test_only_the_broker_room_names_their_private_attributes() -> None:
    """An attribute that begins with an underscore, and that nothing here defines, is another's."""
    trees = {file: ast.parse((ROOT / file).read_text(encoding="utf-8")) for file in FILES}
    own = {name for tree in trees.values() for name in _defined(tree)}
    assert len(own) > 200
    own |= {"_replace"}  # of every named tuple, and public
    private = {
        (str(file), node.attr)
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and node.attr not in own
        and not ast.unparse(node).startswith(OTHERS)
        and _room_of(file) != "broker"
    }
    assert private == set()


def test_each_private_part_names_a_test_that_is_there() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {
        name
        for path in (ROOT / "worker" / "broker").glob("*.py")
        for words in re.findall(r"Tests?: ([^.]+)\.", path.read_text(encoding="utf-8"))
        for name in words.replace(",", " ").split()
    }
    assert len(named) > 15
    assert [name for name in named if f"def test_{name}(" not in tests] == []


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names of functions, classes and variables, and of what objects give themselves."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            yield node.attr


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


#: Libraries, and parts of the standard one, that a room must do without.
WITHOUT = {
    "pose": "celery kombu redis torch os pathlib subprocess socket",
    "engine": "celery kombu redis cv2 subprocess socket",
    "device": "celery kombu cv2",
    "client": "torch cv2 numba",
    "models": "celery kombu redis",
}


@pytest.mark.parametrize("room", WITHOUT)
def test_a_room_does_without(room: str) -> None:
    used = {(str(one.file), one.module.partition(".")[0]) for one in IMPORTS if _room_of(one.file) == room}
    assert [(file, name) for file, name in used if name in WITHOUT[room].split()] == []


@pytest.mark.parametrize("room", ["pose", "engine"])
def test_what_is_pure_asks_no_environment(room: str) -> None:
    used = {(str(one.file), _room(one.module)) for one in OURS if _room_of(one.file) == room}
    assert {(file, name) for file, name in used if name not in (room, "errors", "files")} == set()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("worker.client", "torch cv2 numba"),
        ("worker.client.aio", "torch cv2 numba"),
        ("worker.people, worker.pose.formats, worker.notify.webhook", "torch cv2 numba"),
        ("worker.cli.report", "torch cv2 numba"),
        ("worker.pose.estimator, worker.pose.overlay", "torch celery redis kombu"),
        ("worker.app", "torch cv2 numba"),
        ("worker.settings", "torch cv2 celery redis"),
        # The health check.
        ("worker.__main__, worker.observe.heartbeat", "torch cv2 numba celery redis numpy tqdm pynvml"),
        ("worker.engine", "torch cv2 celery redis"),
    ],
)
def test_importing_a_module_does_not_load_what_it_must_not(module: str, absent: str) -> None:
    script = f"import {module}, sys; print(*[name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
