"""A command line that is read without typer is read as typer reads it."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mipverify.cli.declare import parameters
from mipverify.cli.main import COMMANDS, PROGRAM
from mipverify.cli.plain import plain_values

WORDS = (
    "net.onnx", "a b", "3", "0", "007", "-1", "+3", "1_0", " 3", "0x10", "0.1", "1e-3", "1E3", ".5", "5.", "1e999",
    "nan", "inf", "true", "", "-", "--", "-q", "-v", "-qv", "-q=1", "--json=1", "--time", "-h", "--help", "a=b", "ü",
    "٣", "\udcff", "line\nbreak",
)  # fmt: skip


class OfTyper:
    """What typer calls a command with; None where it refuses the words, or answers them itself."""

    def __init__(self, name: str):
        command, self._called = PROGRAM.find(name), list[dict[str, Any]]()

        @wraps(command)
        def record(**values: Any) -> int:
            self._called.append(values)
            return 0

        application = PROGRAM._replace(find={name: record}.__getitem__).with_typer(typer, [name])
        self._name, self._application = name, typer.main.get_command(application)

    def __call__(self, words: list[str]) -> dict[str, Any] | None:
        self._called.clear()
        try:
            self._application.main([self._name, *words], standalone_mode=False)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
        return self._called[0] if self._called else None


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_read_as_typer_reads_it(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    command, of_typer = PROGRAM.find(name), OfTyper(name)
    taken = parameters(command)
    flags, words = st.sampled_from([flag for each in taken for flag in each.flags or ()]), st.sampled_from(WORDS)
    needed = [each.name for each in taken if each.flags is None and each.default is inspect.Parameter.empty]
    part = st.one_of(
        st.tuples(flags, words), st.tuples(flags, words).map(lambda pair: ("=".join(pair),)), st.tuples(words)
    )
    plain = 0

    @example([("--json", "--eps=", "a")], False)
    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(st.lists(part, max_size=2), st.booleans())
    def check(parts: list[tuple[str, ...]], last: bool) -> None:
        nonlocal plain
        chosen = [word for part in parts for word in part]
        given = [*chosen, *needed] if last else [*needed, *chosen]
        found = plain_values(command, given)
        assert found is None or repr(found) == repr(of_typer(given))
        plain += found is not None

    check()
    assert plain


def test_usual_questions_are_plain() -> None:
    values = plain_values(PROGRAM.find("verify"), ["net.onnx", "p.vnnlib", "--timeout", "9.5", "--seed=3", "-q"])
    assert values is not None
    chosen = {name: values[name] for name in ("network", "property", "timeout", "seed", "quiet", "json", "norm")}
    assert chosen == {
        "network": "net.onnx", "property": "p.vnnlib", "timeout": 9.5, "seed": 3, "quiet": True, "json": False,
        "norm": "linf",
    }  # fmt: skip
    assert plain_values(PROGRAM.find("report"), ["net.onnx", "--data", "d.npz", "--eps", "0.1", "--out", "run"])
