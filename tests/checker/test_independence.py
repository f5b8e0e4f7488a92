"""The checker is a program of its own: it imports numpy, onnx and itself, and stays small."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "checker" / "mipverify_check"
FILES = sorted(PACKAGE.glob("*.py"))
ALLOWED = {"mipverify_check", "numpy", "onnx", *sys.stdlib_module_names}


def imports(path: Path) -> set[str]:
    """The top packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Name):
            assert node.id not in ("__import__", "eval", "exec")
    return found - {"importlib"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_nothing_but_numpy_and_onnx(path: Path) -> None:
    allowed = ALLOWED | ({"onnxruntime"} if path.name == "witness.py" else set())
    assert imports(path) <= allowed
    assert "importlib" not in path.read_text()


def test_needs_nothing_but_numpy_and_onnx() -> None:
    import tomllib

    stated = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert {entry.split(">")[0] for entry in stated["project"]["dependencies"]} == {"numpy", "onnx"}


def test_files_are_short() -> None:
    assert all(len(path.read_text().splitlines()) < 400 for path in FILES)
