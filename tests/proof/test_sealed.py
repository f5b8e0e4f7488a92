"""Only the rules of mipverify.proof make facts: nobody else can construct them, change a copy, or tries to."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
from mipverify.presolve import crown, interval

from mipverify.proof import facts
from mipverify.proof.backward import propagate_backward, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.rows import unit_rows
from tests.presolve.nets import dense

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "mipverify" / "proof"
CODE = [p for room in ("mipverify", "presolve", "solvers", "models") for p in sorted((ROOT / room).rglob("*.py"))]
OUTSIDE = [path for path in CODE if KERNEL not in path.parents]


def sealed() -> dict[str, type]:
    """The classes whose constructors ask for the seal."""
    modules = [importlib.import_module(f"mipverify.proof.{path.stem}") for path in KERNEL.glob("[a-z]*.py")]
    return {
        name: kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        and not issubclass(kind, Exception)
        and "seal" in inspect.signature(kind).parameters
    }


def test_facts_are_sealed() -> None:
    expected = {"Bounds", "RowBounds", "UnitBounds", "LinearBounds", "Rows", "LayerCuts", "OwnCuts", "IdealLayer"}
    expected |= {
        "Scope",
        "EntryBounds",
        "Reduced",
        "Planes",
        "SingleLayer",
        "Boxes",
        "Inherited",
        "Settled",
        "BoxParts",
    } | {"Clipped"}
    assert expected <= set(sealed())


@pytest.mark.parametrize("name", sorted(sealed()))
def test_constructors_refuse_whoever_has_no_seal(name: str) -> None:
    kind = sealed()[name]
    needed = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty and p.name != "seal"]
    with pytest.raises(TypeError, match=f"{name} is a fact"):
        kind(*[None] * len(needed))


def test_facts_are_not_changed_by_copying_them() -> None:
    network = dense(np.random.default_rng(0))
    bounds = interval(network, np.full((1, 5), -0.1), np.full((1, 5), 0.1))
    rows = unit_rows(network, network.output, np.arange(4), None, bounds.like)
    better = tuple(low + 1 for low in bounds.lower)
    with pytest.raises(TypeError):
        dataclasses.replace(bounds, lower=better)
    with pytest.raises(TypeError):
        dataclasses.replace(row_minimum(bounds, rows), lower=np.full(4, 9.0))
    with pytest.raises(TypeError):
        dataclasses.replace(propagate_backward(bounds, rows), error=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bounds.lower = better  # type: ignore[misc]


def test_facts_go_from_process_to_process() -> None:
    network = dense(np.random.default_rng(0))
    bounds = crown(interval(network, np.full((1, 5), -0.1), np.full((1, 5), 0.1)))
    there = pickle.loads(pickle.dumps(bounds))
    assert isinstance(there, Bounds)
    assert there.scope.key == bounds.scope.key
    assert all(np.array_equal(a, b) for a, b in zip(there.lower, bounds.lower, strict=True))


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_else_names_the_seal_or_a_constructor(path: Path) -> None:
    tree, names = ast.parse(path.read_text()), set(sealed())
    for node in ast.walk(tree):
        word = getattr(node, "id", getattr(node, "attr", getattr(node, "arg", None)))
        imported = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        assert word not in ("SEAL", "seal", "Sealed"), f"line {node.lineno}"
        assert not {"SEAL", "Sealed"}.intersection(imported)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            assert called not in names, f"line {node.lineno} makes a {called}"


def test_the_kernel_reads_networks_and_questions_alone() -> None:
    allowed = ("mipverify.proof", "mipverify.network", "mipverify.specification", "mipverify.errors")
    for path in sorted(KERNEL.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mipverify"):
                assert (node.module or "").startswith(allowed), f"{path.name} imports {node.module}"


def test_the_seal_is_one_object() -> None:
    with pytest.raises(TypeError):
        facts.Scope(seal=object())
