"""Imports follow the arrows of docs/architecture.md: none goes up, none in a circle."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"mipverify": "mipverify", "presolve": "mipverify.presolve", "solvers": "mipverify.solvers"}
FOLDERS["models"] = "mipverify.models"

# What each room may import; `errors`, `garbage` and `parallel` know nothing of the others, and serve all.
ARROWS = {
    "network": set(),
    "specification": {"network"},
    "proof": {"network", "specification"},
    "proof_file": {"proof", "network", "specification"},
    "formulation": {"proof", "network", "specification"},
    "attack": {"formulation", "network", "specification"},
    "presolve": {"formulation", "proof", "network", "specification"},
    "solvers": {"presolve", "formulation", "proof", "network", "specification"},
    "engine": {"proof_file", "attack", "solvers", "presolve", "formulation", "proof", "network", "specification"},
    "cluster": {"engine", "network", "specification"},
    "report": {"cluster", "engine", "network", "specification"},
    "api": {"report", "engine", "network", "specification"},
    "benchmark": {"report", "cluster", "network", "specification"},
    "models": {"presolve", "proof", "network", "specification"},
    "cli": {"benchmark", "report", "cluster", "models", "engine", "solvers", "presolve", "network", "specification"},
}
SERVE_ALL = {"errors", "garbage", "parallel"}
# The package itself re-exports; its version is read where results are written, and the trainer evaluates by a report.
KNOWN = {
    ("models/training/evaluate.py", "report"),
    ("models/training/evaluate.py", "mipverify"),
    ("models/training/loop.py", "mipverify"),
    ("mipverify/engine/verdict.py", "mipverify"),
    ("mipverify/report/run.py", "mipverify"),
    ("mipverify/benchmark/run.py", "mipverify"),
}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def module_of(path: Path) -> str:
    folder = path.relative_to(ROOT).parts[0]
    inside = path.relative_to(ROOT / folder).with_suffix("").parts
    return ".".join([FOLDERS[folder], *inside]).removesuffix(".__init__")


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Modules of the package that a file imports, and whether it does so while it is imported itself."""
    tree = ast.parse(path.read_text())
    outside: set[ast.AST] = set()
    for node in ast.walk(tree):
        checking = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if checking or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            outside.update(ast.walk(node))
    modules, found = {module_of(path) for path in FILES}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mipverify":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if whole in modules else str(node.module), node not in outside))
    return tuple(found)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "mipverify"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    mine, name = room(module_of(path)), str(path.relative_to(ROOT))
    if mine not in ARROWS:  # the package's own front: it re-exports
        return
    for module, _ in imports(path):
        other = room(module)
        allowed = other == mine or other in ARROWS[mine] | SERVE_ALL or (name, other) in KNOWN
        assert allowed or (mine == "cli" and other == "mipverify"), f"{mine} imports {module}"


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {module_of(path): {module for module, at_once in imports(path) if at_once} for path in FILES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module)) if module in way else ""
        if module not in done:
            for other in sorted(edges.get(module, ())):
                if other != module:
                    visit(other, (*way, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_the_document_shows_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in (*ARROWS, "parallel"):
        assert f"`mipverify/{name}`" in text or f"`{name}`" in text, name


def test_no_file_of_the_engine_imports_another_in_a_circle_not_even_for_types() -> None:
    inside = [path for path in FILES if room(module_of(path)) == "engine"]
    edges = {module_of(path): {module for module, _ in imports(path)} for path in inside}
    left = dict(edges)
    while left:
        free = [module for module, others in left.items() if not (others - {module}) & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_what_is_known_of_a_problem_changes_in_one_place() -> None:
    """Stages tell the driver what they have come to; nobody else writes into a state."""
    for path in (path for path in FILES if room(module_of(path)) == "engine" and path.name != "state.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                while isinstance(target, ast.Subscript):
                    target = target.value
                owner = target.value if isinstance(target, ast.Attribute) else None
                name = getattr(owner, "attr", getattr(owner, "id", ""))
                assert name != "state", f"{path.name}:{node.lineno} writes into a state"
            call = node.func if isinstance(node, ast.Call) else None
            if isinstance(call, ast.Attribute) and call.attr == "learn" and path.name != "driver.py":
                owner = call.value
                assert getattr(owner, "attr", getattr(owner, "id", "")) != "state", f"{path.name}:{node.lineno}"
