"""Alters the importer in one place at a time, and counts which wrong readings the comparison with the runtime refuses.

    python -m tests.network.mutation [--graphs 6] [--only pooling] [--share 0.1]

A mutant is one change of one expression of one rewrite. It runs over small graphs whose import executes the changed
line. Where the reading changes on the input set, `validated` must refuse it; what it lets pass is printed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.network.model_file import ModelFile
from mipverify.network.rewrites import REWRITES
from mipverify.network.validation import points_of, validated

PACKAGE = "mipverify.network.rewrites"
PLACE = Path(str(importlib.import_module(PACKAGE).__file__)).parent
MODULES = (
    *(f"{PACKAGE}.{path.stem}" for path in sorted(PLACE.glob("*.py")) if path.stem not in ("__init__", "registry")),
    "mipverify.network.fold",
    "mipverify.network.simplify",
    "mipverify.network.trailing",
)
RADIUS = 0.5  # of the boxes that the questions are about
SEEN = 1e-5  # relative change from which on a reading counts as another one


@dataclass(frozen=True)
class Mutant:
    """One altered module: which of its expressions, where that is, and what becomes of it."""

    module: str
    index: int
    line: int
    change: Callable[[Any], ast.AST]

    def tree(self) -> tuple[ast.Module, str]:
        """The altered module, and what was altered in words."""
        tree = ast.parse(_source(self.module).read_text())
        target = _places(tree)[self.index]
        before = ast.unparse(target).splitlines()[0][:60]
        replaced = self.change(target)
        _replace(tree, target, replaced)
        return ast.fix_missing_locations(tree), f"{before}  ->  {ast.unparse(replaced).splitlines()[0][:60]}"

    def __str__(self) -> str:
        return f"{self.module.rpartition('.')[2]}.py:{self.line}: {self.tree()[1]}"


@dataclass(frozen=True)
class Case:
    """A graph with the reading that is right, points of a box, and the lines of the importer that its import runs."""

    name: str
    file: ModelFile
    points: np.ndarray
    outputs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lines: frozenset[tuple[str, int]]


def mutants(module: str) -> list[Mutant]:
    """All mutants of a module."""
    places = _places(ast.parse(_source(module).read_text()))
    return [Mutant(module, i, node.lineno, change) for i, node in enumerate(places) for change in _changes(node)]


def _source(module: str) -> Path:
    return Path(str(importlib.import_module(module).__file__))


def _places(tree: ast.AST) -> list[Any]:
    return [node for node in ast.walk(tree) if hasattr(node, "lineno")]


Change = Callable[[Any], ast.AST]
_OTHER: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def _changes(node: ast.AST) -> Iterator[Change]:
    """Ways of changing one node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: ast.Constant(not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield lambda n: ast.Constant(n.value + 1)
        yield lambda n: ast.Constant(n.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield lambda n: ast.Constant(n.value + 0.5)
        yield lambda n: ast.Constant(-n.value if n.value else 1e-3)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
        yield lambda n: ast.BinOp(n.left, _OTHER[type(n.op)](), n.right)
        if isinstance(node.op, (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod)):
            yield lambda n: ast.BinOp(n.right, n.op, n.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield lambda n: n.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER:
        yield lambda n: ast.Compare(n.left, [_OTHER[type(n.ops[0])](), *n.ops[1:]], n.comparators)
    elif isinstance(node, ast.BoolOp):
        yield lambda n: ast.BoolOp(_OTHER[type(n.op)](), n.values)
    elif isinstance(node, ast.IfExp):
        yield lambda n: n.body
        yield lambda n: n.orelse
    elif isinstance(node, ast.If):
        yield lambda n: ast.If(ast.Constant(True), n.body, n.orelse)
        yield lambda n: ast.If(ast.Constant(False), n.body, n.orelse)
    elif isinstance(node, ast.Call):
        if len(node.args) > 1:
            yield lambda n: ast.Call(n.func, [n.args[1], n.args[0], *n.args[2:]], n.keywords)
        if len(node.keywords) > 0:
            yield lambda n: ast.Call(n.func, n.args, n.keywords[:-1])
    elif isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield lambda n: type(n)([n.elts[1], n.elts[0], *n.elts[2:]], ast.Load())
    elif isinstance(node, ast.Attribute) and node.attr in ("maximum", "minimum", "max", "min", "floor", "ceil"):
        other = {"maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "floor": "ceil"}
        yield lambda n: ast.Attribute(n.value, other.get(n.attr, "floor"), n.ctx)


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if entry is old else entry for entry in value]


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """In here the importer has the mutant's functions in place of its own."""
    original = importlib.import_module(mutant.module)
    table = dict(REWRITES)
    fresh = types.ModuleType(mutant.module)
    fresh.__file__ = original.__file__
    changed: list[tuple[types.ModuleType, str, Any]] = []
    sys.modules[mutant.module] = fresh
    try:
        exec(compile(mutant.tree()[0], str(original.__file__), "exec"), fresh.__dict__)  # noqa: S102
        ours = {id(value): name for name, value in vars(original).items() if _defined_in(value, mutant.module)}
        for place in [m for n, m in sys.modules.items() if n.startswith("mipverify.network") and m is not fresh]:
            for name, value in list(vars(place).items()):
                if id(value) in ours and hasattr(fresh, ours[id(value)]):
                    changed.append((place, name, value))
                    setattr(place, name, getattr(fresh, ours[id(value)]))
        yield
    finally:
        sys.modules[mutant.module] = original
        for place, name, value in changed:
            setattr(place, name, value)
        REWRITES.clear()
        REWRITES.update(table)


def _defined_in(value: Any, module: str) -> bool:
    return isinstance(value, (types.FunctionType, type)) and value.__module__ == module


def graph_cases(examples: int, backend: bool = True) -> list[Case]:
    """ONNX's own test cases and random graphs of every operator, as far as they are imported."""
    from tests.network import test_indexing, test_resize, test_rewrites, test_windows
    from tests.network.backend_cases import cases
    from tests.network.test_choice import CONTINUOUS, choice_model
    from tests.network.test_import import random_graph

    models = [(case.name, case.model.SerializeToString()) for case in cases()] if backend else []
    for name, build in {**test_rewrites.BUILDERS, **test_indexing.BUILDERS}.items():
        models += _drawn(f"random {name}", lambda data, build=build: build(data.draw), examples)
    models += _drawn("random dag", lambda data: random_graph(data, integers=False), examples)
    for kind, name in ((kind, name) for kind in ("float", "double") for name in CONTINUOUS):
        models.append((f"{kind} {name}", choice_model(CONTINUOUS[name], kind).SerializeToString()))
    rng = np.random.default_rng(0)
    resized = [
        test_resize.resize_graph(rng, mode, transformation)
        for transformation in test_resize.TRANSFORMATIONS
        for mode in ("nearest", "linear")
        for _ in range(examples // 2)
    ]
    windows = [
        *test_windows.pools("MaxPool", 19),
        *test_windows.pools("AveragePool", 19),
        *test_windows.transposed(),
        *test_windows.convolutions(),
    ]
    some = [windows[i] for i in np.linspace(0, len(windows) - 1, 12 * examples).astype(int)]
    models += [("window", graph.model(output).SerializeToString()) for graph, output in some]
    models += [("resize", graph.model(output).SerializeToString()) for graph, output in resized]
    found = (_case(f"{name} {i}", content) for i, (name, content) in enumerate(models))
    return [case for case in found if case is not None]


def _drawn(name: str, build: Callable[[st.DataObject], Any], examples: int) -> list[tuple[str, bytes]]:
    """The first models that hypothesis draws, the same ones each time."""
    models: list[tuple[str, bytes]] = []
    checks = list(HealthCheck)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=checks)
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        graph, output = build(data)
        models.append((name, graph.model(output).SerializeToString()))

    collect()
    return models


def _case(name: str, content: bytes) -> Case | None:
    """None for what is not imported, or has no question to be asked."""
    file, rng = ModelFile(name, "", content), np.random.default_rng(0)
    try:
        with _traced() as lines:
            network = load(file)
        center = rng.standard_normal(network.input_size)
        low, high = (center - RADIUS).astype(np.float32), (center + RADIUS).astype(np.float32)
        validated(network, points_of([(low, high)]))
    except InputError:
        return None
    shares = rng.random((64, network.input_size))
    shares[:16] = np.round(shares[:16])
    points = low + shares * (high.astype(np.float64) - low)
    return Case(name, file, points, _outputs(network, points), low, high, frozenset(lines))


def _outputs(network: Network, points: np.ndarray) -> np.ndarray:
    return np.asarray(network.forward(points.reshape(-1, *network.input_shape))).reshape(len(points), -1)


@contextmanager
def _traced() -> Iterator[set[tuple[str, int]]]:
    """The lines of the importer that run in here."""
    names = {str(importlib.import_module(module).__file__): module for module in MODULES}
    lines: set[tuple[str, int]] = set()

    def local(frame: types.FrameType, event: str, _: Any) -> Any:
        lines.add((names[frame.f_code.co_filename], frame.f_lineno))
        return local

    def outer(frame: types.FrameType, event: str, _: Any) -> Any:
        return local(frame, event, _) if frame.f_code.co_filename in names else None

    sys.settrace(outer)
    try:
        yield lines
    finally:
        sys.settrace(None)


def outcome(case: Case) -> str:
    """What becomes of a case under the mutant that is applied: refused, unchanged, caught, escaped or failed."""
    try:
        network = load(case.file)
    except InputError:
        return "refused"
    except Exception:  # noqa: BLE001  # a crash is no verdict
        return "failed"
    try:
        outputs = _outputs(network, case.points)
        changed = outputs.shape != case.outputs.shape or bool(
            (np.abs(outputs - case.outputs) > SEEN * np.maximum(1e-3, np.abs(case.outputs).max())).any()
        )
    except Exception:  # noqa: BLE001
        return "failed"
    try:
        validated(network, points_of([(case.low, case.high)]))
    except InputError:
        return "caught" if changed else "unchanged, caught"
    except Exception:  # noqa: BLE001
        return "failed"
    return "escaped" if changed else "unchanged"


class _LateError(BaseException):
    """Nothing that is tested catches this."""


def run(mutant: Mutant, cases: list[Case], seconds: int = 10) -> Iterator[tuple[Case, str]]:
    """The outcome of each case under a mutant."""

    def late(*_: object) -> None:
        raise _LateError

    previous = signal.signal(signal.SIGALRM, late)
    try:
        with applied(mutant):
            for case in cases:
                signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again: one in a callback is lost
                try:
                    what = outcome(case)
                except (_LateError, RecursionError, MemoryError):
                    what = "failed"
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                yield case, what
    except Exception:  # noqa: BLE001  # a module that cannot be executed alters no reading
        return
    finally:
        signal.signal(signal.SIGALRM, previous)


def chosen(mutant: Mutant, cases: list[Case], count: int) -> list[Case]:
    """Up to `count` cases that run the mutant's line, spread over all that do."""
    able = [case for case in cases if (mutant.module, mutant.line) in case.lines]
    return able if len(able) <= count else [able[i] for i in np.linspace(0, len(able) - 1, count).astype(int)]


def run_module(module: str, cases: list[Case], graphs: int, share: float) -> tuple[Counter[str], list[str]]:
    """How often what became of the cases under the module's mutants, and what escaped."""
    memory = 4 * 2**30  # some mutants ask for any amount
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    counts, escaped, rng = Counter[str](), list[str](), np.random.default_rng(0)
    for mutant in mutants(module):
        if rng.random() > share:
            continue
        counts["mutants"] += 1
        for case, what in run(mutant, chosen(mutant, cases, graphs)):
            counts[what] += 1
            if what == "escaped":
                escaped.append(f"escaped: {mutant}  ({case.name})")
    return counts, escaped


def main() -> None:
    """The whole run, each module in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=6, help="graphs for each mutant")
    parser.add_argument("--only", default="", help="modules whose name contains this")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants")
    arguments = parser.parse_args()
    begin, total, cases = time.perf_counter(), Counter[str](), graph_cases(12)
    print(f"{len(cases)} graphs", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for module in (m for m in MODULES if arguments.only in m):
            counts, escaped = pool.submit(run_module, module, cases, arguments.graphs, arguments.share).result()
            total += counts
            print("\n".join([f"{module} {dict(counts)}", *escaped]), flush=True)
    wrong = total["caught"] + total["escaped"]
    print(f"{dict(total)}, {time.perf_counter() - begin:.0f} s")
    print(f"{total['caught']} of {wrong} altered readings are refused, {total['caught'] / max(1, wrong):.2%}")


if __name__ == "__main__":
    main()
