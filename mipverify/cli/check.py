"""The command `check`: runs the independent checker, which shares no code with the verifier, as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PACKAGE = "mipverify_check"


def check(
    proof: Annotated[str, typer.Argument(help="Proof file; with --witness, the counterexample.", show_default=False)],
    network: Annotated[str, typer.Argument(help="ONNX file that the proof was made for.", show_default=False)],
    property: Annotated[  # noqa: A002 - the name that the help shows
        str | None, typer.Argument(help="VNN-LIB property, if the proof is about one.", show_default=False)
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compute in rational numbers; for small proofs.")] = False,
    witness: Annotated[bool, typer.Option("--witness", help="Replay a counterexample instead.")] = False,
) -> int:
    """Check a proof with a small program that shares no code with the verifier.

    It ends with the exit codes of that program: 0 verified, 1 rejected, 2 bad input.

    \b
    Examples:
      mipverify verify net.onnx property.vnnlib --proof net.proof
      mipverify check net.proof net.onnx property.vnnlib
      mipverify check --witness witness.txt net.onnx property.vnnlib
    """
    import subprocess
    import sys

    chosen = [name for name, on in (("--exact", exact), ("--witness", witness)) if on]
    paths = ["--", proof, network, *([] if property is None else [property])]
    command = [sys.executable, "-P", "-m", PACKAGE, *chosen, *paths]
    return subprocess.run(command, env=_environment(), check=False).returncode


def _environment() -> dict[str, str]:
    """The environment of the checker: installed, or in the folder beside this package, as in a checkout."""
    import importlib.util
    import os

    from mipverify.errors import InputError

    if importlib.util.find_spec(PACKAGE) is not None:
        return dict(os.environ)
    beside = Path(__file__).parents[2] / "checker"
    if not (beside / PACKAGE).is_dir():
        raise InputError("the checker is a program of its own, which is not installed: pip install mipverify-check")
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(beside), *([known] if known else [])])}
