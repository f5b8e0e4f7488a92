"""The command `export`: the mixed-integer program of a question, as a file for any solver."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mipverify import __version__
from mipverify.cli import options as opt
from mipverify.cli.console import stdout_for_results_only
from mipverify.cli.declare import option
from mipverify.cli.exits import DONE
from mipverify.cli.outputs import check_outputs, data_files, write
from mipverify.cli.question import QuestionOptions
from mipverify.cli.streams import say
from mipverify.errors import InputError
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.engine.export import Program
    from mipverify.network import Network


def export(
    network: opt.Network,
    property: opt.Property = None,  # noqa: A002 - the name that the help shows
    out: Annotated[str, option(metavar="FILE", help="Model to write: .mps or .lp.", show_default=False)] = "",
    data: opt.Data = None,
    index: opt.Index = None,
    eps: opt.Eps = None,
    norm: opt.Norm = "linf",
    label: opt.Label = None,
    targets: opt.Targets = None,
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    json: opt.Json = False,
) -> int:
    """Write the mixed-integer linear program of a question, with proven bounds and names that tell layer and unit.

    Its minimum is the least margin: the property holds exactly where it is positive. Without a property, the network
    alone, with its inputs between the limits of --domain.

    \b
    Examples:
      mipverify export net.onnx property.vnnlib --out model.mps
      mipverify export net.onnx --data mnist_test.npz --index 7 --eps 0.1 --out model.lp
      mipverify export net.onnx --out network.mps
    """
    use_one_thread()  # before anything loads numpy
    asked = QuestionOptions(property, data, index, eps, norm, label, targets, domain, scale, mean, std, layout)
    asked.check()
    suffix = Path(out).suffix
    if suffix not in (".mps", ".lp"):
        raise InputError(
            f"--out {out}: a model is written as .mps or .lp" if out else "--out FILE.mps or .lp is needed"
        )
    check_outputs({"--out": out}, [network, property, *data_files(data)])
    with stdout_for_results_only() if json else nullcontext():
        from mipverify.engine.export import written
        from mipverify.report.files import inputs_of

        read, about, program = _read(network, asked)
        check_outputs({"--out": out}, inputs_of(read))  # weights in other files, too
        write(out, written(program, suffix))
    facts = {
        "path": out,
        "columns": program.milp.columns,
        "rows": program.milp.rows,
        "binaries": int(program.milp.integer.sum()),
        "nonzeros": int(program.milp.matrix.nnz),
        "network": {"path": read.path, "sha256": read.sha256},
        "property": about,
        "version": __version__,
    }
    say(json_module.dumps(facts, allow_nan=False) if json else _text(facts, read, asked.stated()))
    return DONE


def _read(path: str, asked: QuestionOptions) -> tuple[Network, dict[str, Any], Program]:
    """The network, what is asked of it in short, and the program."""
    from mipverify.engine.export import plain_program, question_program

    if asked.stated():
        network, question = asked.read({"": path})
        return network, question.about, question_program(network, question.specification)
    from mipverify.network import load
    from mipverify.specification.sets import Box

    limits = asked.preprocessing().domain
    if limits is None:
        raise InputError("--domain none: a model needs bounds of the inputs; state limits, or a property")
    network = load(path)
    low, high = ([side] * network.input_size for side in limits)
    return network, {"domain": asked.domain}, plain_program(network, Box.from_exact(low, high))


def _text(facts: dict[str, Any], network: Network, stated: bool) -> str:
    lines = [
        f"{facts['path']}  {facts['columns']} columns, {facts['binaries']} of them binary, {facts['rows']} rows, "
        f"{facts['nonzeros']} coefficients",
        "  objective   the least margin: the property holds exactly where its minimum is positive"
        if stated
        else "  objective   none: the network alone",
        *(f"  note        {note}" for note in network.notes),
    ]
    return "\n".join(lines)
