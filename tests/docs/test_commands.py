"""Every command that README, docs and help show is one that the command line understands; README's do what they say."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import typer

from mipverify.cli.main import COMMANDS, PROGRAM, main
from tests.cli.files import vnnlib
from tests.formats.sources import dense_arrays, save_mat

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
IN_BLOCK = re.compile(r"^(?: {4,}|)(mipverify [a-z][^\n]*)$", re.MULTILINE)
IN_TEXT = re.compile(r"`(mipverify [a-z][^`\n]*)`")


def commands(text: str) -> Iterator[str]:
    """Shell commands of a text, in blocks or between backquotes; lines that end in a backslash are joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    for found in (*IN_BLOCK.findall(joined), *IN_TEXT.findall(text)):
        command = found.split("  #")[0].strip()
        if (
            not re.search(r"…|\[|COMMAND|--install|--help", command) and len(command.split()) > 2
        ):  # patterns, not commands
            yield command


def shown() -> list[tuple[str, str]]:
    """(where, command) of all texts that users read."""
    application = typer.main.get_command(PROGRAM.with_typer(typer, list(COMMANDS)))
    texts = {name: (ROOT / name).read_text() for name in DOCUMENTS}
    texts["mipverify --help"] = application.help or ""
    for name, command in application.commands.items():  # type: ignore[attr-defined]
        texts[f"mipverify {name} --help"] = command.help or ""
    return [(where, command) for where, text in texts.items() for command in dict.fromkeys(commands(text))]


def test_every_command_is_shown_on_its_page_and_what_newcomers_try_in_the_readme() -> None:
    everywhere = shown()
    assert {command.split()[1] for _, command in everywhere} == set(COMMANDS)
    page = {command.split()[1] for where, command in everywhere if where == "docs/command-line.md"}
    assert page >= set(COMMANDS) - {"prune", "finetune"}  # which are told with training
    readme = {command.split()[1] for where, command in everywhere if where == "README.md"}
    assert readme >= {"verify", "report", "check"}


@pytest.mark.parametrize(("where", "command"), shown())
def test_command_is_understood(where: str, command: str) -> None:
    application = typer.main.get_command(PROGRAM.with_typer(typer, list(COMMANDS)))
    name, *arguments = shlex.split(command)[1:]
    known = application.commands  # type: ignore[attr-defined]
    assert name in known, where
    known[name].make_context(name, arguments)  # raises for an option or a value that it does not know


# Pages whose commands run here, in their order, in one folder each; MIPVerify.jl's: tests/parity.
RUN = ["README.md"] + [
    f"docs/{page}.md"
    for page in (
        "command-line", "tutorial", "results", "networks", "compare", "curves", "distances", "export",
        "from-alpha-beta-crown", "from-marabou",
    )
]  # fmt: skip
# What takes long, or files that are not at hand: the commands of threats.md and benchmark.md have tests of their own.
NOT_RUN = re.compile(r"acas|--threat|vnnlib \[|2> ")
SHORT = {
    "train": ["--epochs", "1", "--batch-size", "32", "--threads", "1"],
    "report": ["--samples", "0:10", "--workers", "0", "--proofs"],
    "compare": ["--timeout", "2"],
    "distortion": ["--timeout", "2"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the pages speak of."""
    zoo = files("mipverify.models.zoo")
    for name in ("net.onnx", "pruned.onnx", "script.onnx"):
        shutil.copy(str(zoo / "mnist_small_linf0.1.onnx"), tmp_path / name)
    for name in ("mnist_test.npz", "mnist_train.npz"):
        shutil.copy(str(zoo / "mnist_100.npz"), tmp_path / name)
    (tmp_path / "property.vnnlib").write_text(vnnlib(784, 10, "0", "0.01", "(>= Y_0 100)"))
    save_mat(tmp_path / "weights.mat", dense_arrays(np.random.default_rng(0), [784, 20, 10], ["fc1", "logits"]))
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_work(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    found = [command for command in commands((ROOT / page).read_text()) if not NOT_RUN.search(command)]
    assert found
    for command in found:
        name, *arguments = shlex.split(command)[1:]
        if name == "train":
            pytest.importorskip("torch")
        options = SHORT.get(name, [])
        if "--samples" in arguments and name != "report":
            options = ["--samples", "0:2", *options]
        code = main([name, *arguments, *options])
        output = capfd.readouterr()
        undecided = "--timeout" in options or "--norm" in arguments
        assert code in ((0, 3) if undecided else (0,)), (command, output)
        assert output.out, command
