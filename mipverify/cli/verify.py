"""The command `verify`: one question, one verdict."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from mipverify import __version__, garbage
from mipverify.cli import options as opt
from mipverify.cli.console import green, red, stdout_for_results_only, table, yellow
from mipverify.cli.counterexample import counterexample, result_word, wrong_class
from mipverify.cli.declare import option
from mipverify.cli.exits import OF_VERDICT
from mipverify.cli.outputs import check_outputs, data_files, remove_stale, write, write_proof
from mipverify.cli.question import Question, QuestionOptions
from mipverify.cli.streams import say
from mipverify.errors import InputError
from mipverify.parallel import cores
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.engine import Verdict
    from mipverify.engine.budget import Clock
    from mipverify.engine.threats.sample import Sample
    from mipverify.engine.threats.threat import Threat
    from mipverify.network import Network
    from mipverify.specification import Specification


def verify(
    network: opt.Network,
    property: opt.Property = None,  # noqa: A002 - the name that the help shows
    data: opt.Data = None,
    index: opt.Index = None,
    eps: opt.Eps = None,
    norm: opt.Norm = "linf",
    threat: opt.Threat = None,
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    label: opt.Label = None,
    targets: opt.Targets = None,
    timeout: opt.Timeout = 300.0,
    workers: Annotated[
        int | None,
        option(metavar="N", help="Processes that share the work of a hard question, by default one for each core."),
    ] = None,
    solver: opt.Solver = "auto",
    seed: opt.Seed = 0,
    arithmetic: opt.Arithmetic = "real",
    memory: opt.Memory = None,
    witness: Annotated[
        str | None, option(metavar="FILE", help="Write a counterexample here, in VNN-COMP's form.")
    ] = None,
    result_file: Annotated[
        str | None, option(metavar="FILE", help="Write sat, unsat, unknown or timeout here, as VNN-COMP asks for.")
    ] = None,
    proof: Annotated[
        str | None,
        option(metavar="FILE", help="Write a proof of what holds here, which `mipverify-check` checks by itself."),
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Prove that no input in a set makes the output wrong, or find one that does.

    \b
    Examples:
      mipverify verify net.onnx property.vnnlib --timeout 60
      mipverify verify net.onnx --data mnist_test.npz --index 7 --eps 0.1
      mipverify verify net.onnx --data mnist_test.npz --index 7 --eps 0.1 --targets 3,5 --json
      mipverify verify net.onnx --data mnist_test.npz --index 7 --threat rotation:5,translation:1
      mipverify verify net.onnx --data mnist_test.npz --index 7 --threat mask:background --eps 0.3
      mipverify verify net.onnx.gz property.vnnlib.gz --result-file out.txt
      mipverify verify "[('f', 'a.onnx'), ('g', 'b.onnx')]" two_networks.vnnlib

    Ends with 0 if the property holds, 10 if it is violated, 3 if neither was shown within the limits.
    """
    use_one_thread()  # before anything loads numpy
    asked = QuestionOptions(property, data, index, eps, norm, label, targets, domain, scale, mean, std, layout, threat)
    if not asked.stated():
        raise InputError("what is to be verified? Give a PROPERTY file, or --data FILE --index I --eps E")
    asked.check()
    workers = cores() if workers is None else workers
    opt.check_limits(timeout, workers, seed)
    cap = opt.parse_memory(memory)
    opt.check_solver(solver)
    opt.check_arithmetic(arithmetic)
    if threat is not None and memory is not None:
        raise InputError("--memory cannot be combined with --threat")
    if proof is not None:
        opt.check_provable(opt.parse_threat(threat))
    outputs = {"--witness": witness, "--result-file": result_file, "--proof": proof}
    networks = _named(network)
    check_outputs(outputs, [*networks.values(), property, *data_files(data)])

    with stdout_for_results_only() if json else nullcontext():
        from mipverify.cli.progress import Progress
        from mipverify.engine.budget import Clock
        from mipverify.report.files import inputs_of

        clock = Clock(timeout)
        read = read_within(networks, asked, clock)
        if read is not None:
            check_outputs(outputs, inputs_of(read[0]))  # weights in other files, too
            _check_proof(proof, read[0])
        remove_stale(outputs.values())
        with Progress(hidden=quiet) as progress:
            verdict = ask(
                read,
                clock,
                solver=solver,
                seed=seed,
                workers=workers,
                memory=cap,
                progress=progress,
                proof=proof is not None,
                arithmetic=arithmetic,
            )

    kept, unwritten = write_proof(proof, verdict.proof)
    try:
        if json:
            say(json_module.dumps({**record(verdict, read, network), "proof": kept}, allow_nan=False))
        elif quiet:
            say(verdict.verdict)
        else:
            say(describe(verdict, None if read is None else read[1], verbose=verbose, proof=kept))
    finally:  # what cannot be printed may still be written, and the other way round
        found = counterexample_of(verdict, read)
        if witness is not None and found:
            write(witness, found)
        if result_file is not None:
            write(result_file, result_word(verdict, timeout) + "\n" + found)
    if unwritten is not None:
        raise unwritten
    return OF_VERDICT[verdict.verdict]


def _named(network: str) -> dict[str, str]:
    """The files of networks by name."""
    if not network.startswith("["):
        return {"": network}
    from mipverify.specification.naming import network_files

    return dict(network_files(network))


def _check_proof(proof: str | None, network: Network) -> None:
    """Refuse a proof about a network that is made of several, which no file of a network is."""
    from mipverify.network.compose import ComposedModel

    if proof is not None and isinstance(network.file, ComposedModel):
        raise InputError(f"--proof {proof}: a proof is about one file of a network with one input and one output")


def counterexample_of(verdict: Verdict, read: tuple[Network, Question] | None) -> str:
    """The counterexample in the form that the version of the property asks for; empty where there is none."""
    if verdict.witness is None or read is None:
        return ""
    network, question = read
    if question.specification.declarations is None:
        return counterexample(verdict.witness)
    from mipverify.engine.query import assignment

    return assignment(question.specification, network, verdict.witness.input.reshape(-1), verdict.witness.stated)


def read_within(networks: Mapping[str, str], asked: QuestionOptions, clock: Clock) -> tuple[Network, Question] | None:
    """The network and the question; None where reading them takes all the time."""
    from mipverify.parallel.guard import LeftBehindError, run_within

    try:
        return run_within(clock, lambda: asked.read(networks))
    except LeftBehindError:
        return None
    finally:
        garbage.begin()


def ask(read: tuple[Network, Question] | None, clock: Clock, **limits: Any) -> Verdict:
    from mipverify.engine import Verdict
    from mipverify.engine import verify as decide

    reason = "time"
    try:
        if read is not None and read[1].threat is not None:
            return _threatened(read[0], *read[1].threat, clock, **limits)
        if read is not None:
            verdict = decide(read[0], read[1].specification, timeout=clock.left(), **limits)
            _check_bounds(verdict, read[1].specification)
            return verdict
    except KeyboardInterrupt:  # between the places where the engine itself gives up in good order
        reason = "interrupted"
    return Verdict("unknown", clock.elapsed(), "none" if read else "reading", reason=reason)


def _threatened(
    network: Network,
    threat: Threat,
    sample: Sample,
    clock: Clock,
    *,
    solver: str,
    seed: int,
    workers: int,
    progress: Any,
    arithmetic: str,
    proof: bool,
    **_: Any,
) -> Verdict:
    from mipverify.engine.threats.threat import Limits

    return threat.verify(network, sample, Limits(clock.left(), solver, seed, workers, progress, arithmetic, proof))


def _check_bounds(verdict: Verdict, specification: Specification) -> None:
    """Raise InputError where inputs have no bounds, and no counterexample was found in a part of the set."""
    if specification.assumed is not None and specification.path is not None and verdict.verdict != "violated":
        from mipverify.specification import load_vnnlib

        load_vnnlib(specification.path)  # says which inputs


def record(verdict: Verdict, read: tuple[Network, Question] | None, path: str) -> dict[str, Any]:
    """The object that `--json` prints; path: of the network, in case that it could not be read in time."""
    network, question = read or (None, None)
    return {
        **verdict.to_json(),
        "network": {"path": network.path if network else path, "sha256": network.sha256 if network else None},
        "property": question.about if question else {},
        "version": __version__,
    }


def describe(verdict: Verdict, question: Question | None, *, verbose: bool, proof: str | None = None) -> str:
    """The verdict for people. proof: where one was written."""
    word = {"holds": green, "violated": red, "unknown": yellow}[verdict.verdict](verdict.verdict)
    lines = [f"{word}  ({verdict.stage}, {verdict.seconds:.2f} s)"]
    if verdict.about():
        lines.append(f"  about   {verdict.about()}")
    if verdict.verdict == "unknown":
        lines.append(f"  reason  {verdict.reason}")
    if verdict.margin_lower_bound is not None and verdict.verdict != "violated":
        lines.append(f"  margin  at least {verdict.margin_lower_bound:.6g}")
    if verdict.witness is not None and question is not None:
        lines.append(f"  output  {_output(verdict, question)}")
    if worst := verdict.statistics.get("worst"):
        where = ", ".join(f"{name} {value:.6g}" for name, value in worst.items())
        lines.append(f"  {'at     ' if verdict.verdict == 'violated' else 'closest'} {where}")
    if verdict.trusted:
        lines.append(f"  trusts  {', '.join(verdict.trusted)}")
    if proof is not None:
        lines.append(f"  proof   {proof}")
    lines += [f"  note    {note}" for note in verdict.notes]
    if question is not None and question.preprocessing:
        lines.append(f"  data    {question.preprocessing}")
    if verbose and verdict.statistics:
        rest = {key: value for key, value in verdict.statistics.items() if key not in ("steps", "seconds")}
        lines += ["", table(("statistic", "value"), [(key, _short(value)) for key, value in _flat(rest)], left=2)]
        lines += ["", _story(verdict.statistics.get("steps", []))]
    return "\n".join(lines)


def _output(verdict: Verdict, question: Question) -> str:
    assert verdict.witness is not None
    output = verdict.witness.output.reshape(-1)
    if question.specification.kind == "robustness":
        return wrong_class(output, question.about["label"])
    shown = ", ".join(f"{value:.6g}" for value in output[:8])
    return shown + (f", … ({len(output)} values)" if len(output) > 8 else "")


def _story(steps: list[dict[str, Any]]) -> str:
    """How the question was decided, stage by stage."""
    rows = [
        (
            step["stage"],
            f"{step['seconds']:.3f}",
            str(step["open"]),
            "" if step["bound"] is None else f"{step['bound']:.4g}",
            "" if step["unstable"] is None else str(step["unstable"]),
        )
        for step in steps
    ]
    lines = table(("stage", "seconds", "open", "bound", "unstable"), rows).splitlines()
    return "\n".join(
        f"{line}  {why}".rstrip() for line, why in zip(lines, ["", *(s["why"] for s in steps)], strict=True)
    )


def _flat(statistics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in statistics.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(_short(item) for item in value)
    return str(value)
