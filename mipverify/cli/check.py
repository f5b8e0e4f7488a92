"""The command `check`: runs the independent checker, which shares no code with the verifier, as it is."""

from __future__ import annotations

import json as json_module
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mipverify.cli import options as opt
from mipverify.cli.console import stdout_for_results_only
from mipverify.cli.declare import argument, option
from mipverify.cli.streams import say, tell
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.report.checking import Checked

VERIFIED, REJECTED, UNJUDGED = 0, 1, 2  # the exit codes of the checker
SHOWN = 20  # proofs that are named, of each kind


def check(
    proof: Annotated[
        str,
        argument(
            help="Proof file, or a folder of them; the DIR of a report; with --witness, the counterexample.",
            show_default=False,
        ),
    ],
    network: Annotated[
        str | None, argument(help="ONNX file that the proof was made for; a run knows it.", show_default=False)
    ] = None,
    property: Annotated[  # noqa: A002 - the name that the help shows
        str | None, argument(help="VNN-LIB property, if the proof is about one.", show_default=False)
    ] = None,
    exact: Annotated[bool, option("--exact", help="Compute in rational numbers; for small proofs.")] = False,
    witness: Annotated[bool, option("--witness", help="Replay a counterexample instead.")] = False,
    timeout: Annotated[
        float | None, option(metavar="SECONDS", help="Give up a proof after that time.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, option(metavar="FILE", help="Data of a run, if it is elsewhere now.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, option(metavar="N", help="Processes for a run, by default one for each core.")
    ] = None,
    json: opt.Json = False,
) -> int:
    """Check a proof with a small program that shares no code with the verifier, or all proofs of a report.

    It ends with the exit codes of that program: 0 verified, 1 rejected, 2 bad input. What is said of the proofs of a
    report is written into it; the same command goes on where it stopped.

    \b
    Examples:
      mipverify verify net.onnx property.vnnlib --proof net.proof
      mipverify check net.proof net.onnx property.vnnlib
      mipverify report net.onnx --data mnist_test.npz --eps 0.1 --out run --proofs
      mipverify check run
      mipverify check --witness witness.txt net.onnx property.vnnlib
    """
    from mipverify.report.database import is_run

    opt.check_limits(1.0 if timeout is None else timeout, 1 if workers is None else workers)
    if not witness and property is None and is_run(proof):
        return _check_run(proof, network, data, exact, timeout, workers, json)
    for name, given in (("--data", data), ("--workers", workers)):
        if given is not None:
            raise InputError(f"{name} is for the folder of a report, and {proof} is none")
    if network is None:
        if not Path(proof).exists():
            raise InputError(f"{proof}: no such file or folder")
        if Path(proof).is_dir():
            raise InputError(f"{proof} is not the folder of a report; other folders of proofs need NETWORK, their file")
        raise InputError("check needs NETWORK, the ONNX file that the proof was made for")
    from mipverify.report.checker import command, environment

    chosen = [name for name, on in (("--exact", exact), ("--witness", witness), ("--json", json)) if on]
    limits = [] if timeout is None else [f"--timeout={timeout!r}"]
    paths = ["--", proof, network, *([] if property is None else [property])]
    return subprocess.run(command(*chosen, *limits, *paths), env=environment(), check=False).returncode


def _check_run(
    directory: str,
    network: str | None,
    data: str | None,
    exact: bool,
    timeout: float | None,
    workers: int | None,
    json: bool,
) -> int:
    import sys

    from mipverify.parallel import cores
    from mipverify.report.checking import check_run

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            tell(f"{done:,} of {total:,} proofs")

    with stdout_for_results_only() if json else nullcontext():
        try:
            found = check_run(
                directory,
                network=network,
                data=data,
                exact=exact,
                timeout=timeout,
                workers=cores() if workers is None else workers,
                progress=progress,
            )
        except KeyboardInterrupt:
            tell(f"mipverify: what was checked is noted in {directory}; the same command continues")
            raise
    say(json_module.dumps(_record(found), allow_nan=False) if json else _described(found))
    return REJECTED if found.rejected else UNJUDGED if found.unjudged else VERIFIED


def _record(found: Checked) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        **found.result.summary["proofs"],
        "checked_now": found.judged,
        "seconds": found.seconds,
        "rejections": [{"index": sample.index, "reason": sample.proof_check} for sample in found.rejected],
        "unjudged": [{"index": index, "reason": reason} for index, reason in found.unjudged],
    }


def _described(found: Checked) -> str:
    """The end of a check for people."""
    from mipverify.report.live import duration

    proofs, lines = found.result.summary["proofs"], []
    for kind, some in (
        ("rejected", [(sample.index, sample.proof_check) for sample in found.rejected]),
        ("not judged", list(found.unjudged)),
    ):
        lines += [f"sample {index}: {kind}: {reason}" for index, reason in some[:SHOWN]]
        lines += [f"and {len(some) - SHOWN:,} more"] if len(some) > SHOWN else []
    by = " and ".join(proofs["verified_by"])
    without = f"; {proofs['without']:,} samples hold without a proof" if proofs["without"] else ""
    assert found.result.directory is not None
    return "\n".join(
        [
            *lines,
            f"{proofs['verified']:,} of {proofs['kept']:,} proofs verified{f' by {by}' if by else ''}, "
            f"{proofs['rejected']:,} rejected{without}",
            f"{found.judged:,} checked now in {duration(found.seconds)}",
            f"report  {found.result.directory / 'report.html'}",
        ]
    )
