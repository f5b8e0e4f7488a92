"""What CONTRIBUTING asks of every file: its length, no state of modules, and the field's words for what it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.test_architecture import FILES, ROOT

CHECKER = sorted((ROOT / "checker").rglob("*.py"))
BESIDE = [path for room in ("tests", "benchmarks", "examples") for path in sorted((ROOT / room).rglob("*.py"))]
LINES = 400
CHANGES = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "discard"}
# Tables that are filled while their modules are imported, by decorators that enter what stands in a file.
REGISTRIES = {("mipverify/network/rewrites/registry.py", "REWRITES")}
# Names that said nothing to readers from the field, and what stands for them now: docs/glossary.md.
PRIVATE = frozenset(
    """settle_signs Corners pass_back respond doubt thin sketch Lifting Shallow Hands Crew ALONE dealt blurred kicked
    Bracket what_emptiness_shows uncertainty""".split()  # noqa: SIM905
)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_are_short_enough_to_be_read() -> None:
    assert not [shown(path) for path in (*FILES, *CHECKER, *BESIDE) if len(path.read_text().splitlines()) > LINES]


def changed_inside_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines in functions that change what a name of the module holds."""
    names = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for function in (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
        own = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        own |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield node.lineno, ", ".join(node.names)
            changed: ast.expr | None = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
                changed = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
                changed = node.func.value
            if isinstance(changed, ast.Name) and changed.id in names - own:
                yield node.lineno, changed.id


def test_the_check_finds_state() -> None:
    module = "A = {}\nB = []\ndef f():\n    global C\n    A[1] = 2\n    B.append(3)\ndef g(A):\n    A[1] = 2\n"
    assert list(changed_inside_functions(ast.parse(module))) == [(4, "C"), (5, "A"), (6, "B")]


def test_modules_have_no_state() -> None:
    assert not [
        f"{shown(path)}:{line}: {name}"
        for path in (*FILES, *CHECKER)
        for line, name in changed_inside_functions(ast.parse(path.read_text()))
        if (shown(path), name) not in REGISTRIES
    ]


def test_names_are_the_fields_words() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            for name in (getattr(node, key, None) for key in ("id", "name", "attr", "arg")):
                assert str(name).lstrip("_") not in PRIVATE, f"{shown(path)}: {name}"


def test_what_the_glossary_points_at_is_there() -> None:
    for file in re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs" / "glossary.md").read_text()):
        assert any((ROOT / place / file).exists() for place in ("", "mipverify")), file
