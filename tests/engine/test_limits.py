"""Time, memory, interrupts and failures: a question that was not finished is never answered."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mipverify.engine import verify
from mipverify.engine.budget import Clock
from mipverify.engine.schedule import CASCADE, CROWN, FIRST_BRANCHING, INTERVAL, OPTIMIZED_CROWN
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import Trusted, Update
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.parallel.guard import run_within
from mipverify.specification import Specification
from tests.engine.calls import calling
from tests.soundness.nets import dense, lowest_sampled, question, random_layers

ROW = [1.0, -1.0, 0.0]
# Wide boxes of a deep network without training: nothing decides this in seconds.
LAYERS = random_layers(np.random.default_rng(0), (30, *[64] * 6, 3))
HARD = dense(LAYERS)
LOW = lowest_sampled(HARD, np.zeros(30), np.ones(30), ROW)
QUESTION = question(np.zeros(30), np.ones(30), [[(ROW, LOW - 0.7)], [(ROW, LOW - 0.5)]])


@pytest.mark.parametrize("solver", ["auto", "bab", "highs", "cbc"])
def test_the_timeout_is_kept_and_the_bound_reached_is_told(solver: str) -> None:
    begin = time.perf_counter()
    verdict = verify(HARD, QUESTION, timeout=1.0, solver=solver)
    assert time.perf_counter() - begin < 3.0
    assert (verdict.verdict, verdict.reason) == ("unknown", "time")
    assert verdict.margin_lower_bound is not None
    assert verdict.margin_lower_bound <= 0.5


def test_steps_tell_what_each_stage_came_to() -> None:
    steps = verify(HARD, QUESTION, timeout=3.0).statistics["steps"]
    assert [step["stage"] for step in steps][:3] == ["evaluation", "interval", "crown"]
    bounds = [step["bound"] for step in steps if step["bound"] is not None]
    assert bounds == sorted(bounds)
    assert all(step["open"] == 2 for step in steps)
    assert [step["unstable"] for step in steps if step["unstable"] is not None] == sorted(
        (step["unstable"] for step in steps if step["unstable"] is not None), reverse=True
    )
    assert any("intermediate bounds" in step["why"] for step in steps)


def test_no_time_is_no_answer() -> None:
    verdict = verify(HARD, QUESTION, timeout=0.0)
    assert (verdict.verdict, verdict.reason, verdict.margin_lower_bound) == ("unknown", "time", None)


def hungry(asked: object) -> None:
    """A stage that asks for 2 GB."""
    np.ones(1 << 28)


def test_memory_that_runs_out_ends_in_unknown_and_keeps_the_bound_reached() -> None:
    cascade = (INTERVAL, calling("hungry", hungry))
    verdict = verify(HARD, QUESTION, timeout=20.0, memory=1 << 26, stages=cascade)
    assert (verdict.verdict, verdict.reason, verdict.stage) == ("unknown", "out of memory", "hungry")
    assert verdict.margin_lower_bound is not None
    np.ones(1 << 20)  # there is no cap here


def deadly(asked: object) -> None:
    """A stage that ends as numerical libraries do where an allocation fails."""
    os._exit(1)


def test_a_library_that_ends_the_process_for_want_of_memory_ends_in_unknown() -> None:
    cascade = (INTERVAL, calling("deadly", deadly))
    verdict = verify(HARD, QUESTION, timeout=20.0, memory=1 << 26, stages=cascade)
    assert (verdict.verdict, verdict.reason, verdict.stage) == ("unknown", "out of memory", "deadly")
    assert verdict.margin_lower_bound is not None
    assert [step["stage"] for step in verdict.statistics["steps"]] == ["interval"]


def killed(asked: object) -> None:
    """A stage that the kernel ends, as it does where the machine has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


def aborted(asked: object) -> None:
    """A stage that ends as C++ does where an allocation fails."""
    os.abort()


@pytest.mark.parametrize("stage", [killed, aborted])
def test_a_process_that_is_ended_for_want_of_memory_ends_in_unknown(stage: Callable[[object], None]) -> None:
    cascade = (INTERVAL, calling("ended", stage))
    verdict = verify(HARD, QUESTION, timeout=20.0, memory=1 << 26, stages=cascade)
    assert (verdict.verdict, verdict.reason, verdict.stage) == ("unknown", "out of memory", "ended")


def quits(asked: object) -> None:
    """A stage whose process ends for a reason of its own."""
    os._exit(3)


def test_a_process_that_ends_for_another_reason_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        verify(HARD, QUESTION, timeout=20.0, memory=1 << 28, stages=(INTERVAL, calling("quits", quits)))


def test_a_process_that_cannot_read_the_question_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("known_to_this_process_only")
    exec("def stage(asked): pass", module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(RuntimeError, match="exit code 1"):
        verify(HARD, QUESTION, timeout=20.0, memory=1 << 28, stages=(calling("elsewhere", module.stage),))


def test_under_a_cap_that_suffices_the_verdict_is_the_same(tmp_path: Path) -> None:
    easy = question(np.zeros(30), np.ones(30), [[(ROW, -1e4)]])
    verdict = verify(HARD, easy, timeout=20.0, memory=1 << 30)
    assert (verdict.verdict, verdict.stage) == ("holds", "interval")
    save(tmp_path / "hard.onnx")
    low = question(np.zeros(30), np.ones(30), [[(ROW, 1e4)]])
    verdict = verify(load(tmp_path / "hard.onnx"), low, timeout=20.0, memory=1 << 30)
    assert (verdict.verdict, verdict.stage) == ("violated", "evaluation")
    assert verdict.witness is not None


def test_a_question_that_does_not_fit_is_refused_under_a_cap_as_well() -> None:
    with pytest.raises(InputError, match="input"):
        verify(HARD, question(np.zeros(29), np.ones(29), [[(ROW, 0.0)]]), memory=1 << 28)
    with pytest.raises(InputError, match="memory"):
        verify(HARD, QUESTION, memory=1 << 28, stages=(calling("local", lambda asked: None),))


def test_the_timeout_is_kept_by_a_process_with_a_cap() -> None:
    begin = time.perf_counter()
    verdict = verify(HARD, QUESTION, timeout=5.0, memory=1 << 30, stages=(INTERVAL, calling("idle", idle)))
    assert time.perf_counter() - begin < 7.0
    assert (verdict.verdict, verdict.reason, verdict.stage) == ("unknown", "time", "idle")


def idle(asked: object) -> None:
    """A stage that never looks at the clock."""
    time.sleep(30)


def test_a_stage_that_never_looks_at_the_clock_is_left_behind() -> None:
    begin = time.perf_counter()
    verdict = verify(HARD, QUESTION, timeout=0.3, stages=(INTERVAL, calling("waits", waits)))
    assert time.perf_counter() - begin < 1.5
    assert (verdict.verdict, verdict.reason, verdict.stage) == ("unknown", "time", "waits")
    assert verdict.margin_lower_bound is not None
    steps = verdict.statistics["steps"]
    assert [step["stage"] for step in steps] == ["interval", "waits"]
    assert 0.2 < steps[1]["seconds"] < 1.5


def waits(asked: object) -> None:
    """A stage that looks at the clock too late."""
    time.sleep(2.0)


def test_what_is_left_behind_changes_no_verdict_any_more() -> None:
    told: list[Verdict] = []

    def late(work: Work) -> None:
        time.sleep(1.2)
        for condition in work.state.open().tolist():
            work.tell(Update(trusted=Trusted(condition, 1.0, "a late one")))
        assert work.state.decided()
        told.append(verdict)

    verdict = verify(HARD, QUESTION, timeout=0.2, stages=(calling("late", late),))
    assert (verdict.verdict, verdict.margin_lower_bound) == ("unknown", None)
    time.sleep(1.0)
    assert told == [verdict]
    assert (verdict.verdict, verdict.margin_lower_bound) == ("unknown", None)


def test_an_error_of_the_work_is_raised_where_one_waits_for_it() -> None:
    with pytest.raises(ZeroDivisionError):
        run_within(Clock(10.0), lambda: 1 // 0)
    assert run_within(Clock(float("inf")), lambda: 7) == 7


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_stage_that_raises_is_a_failure_and_no_verdict(position: int) -> None:
    def broken(asked: object) -> None:
        raise ZeroDivisionError("a fault")

    cascade = (*CASCADE[:position], calling("broken", broken))
    with pytest.raises(ZeroDivisionError):
        verify(HARD, QUESTION, timeout=5.0, stages=cascade)


def test_no_stage_at_all_proves_nothing() -> None:
    verdict = verify(HARD, QUESTION, timeout=5.0, stages=())
    assert (verdict.verdict, verdict.margin_lower_bound) == ("unknown", None)


def interrupted_in(
    stage: str,
    network: Network,
    specification: Specification,
    after: int,
    cascade: tuple[Stage, ...] = CASCADE,
) -> tuple[Verdict, list[float]]:
    """The verdict when Ctrl-C comes in the progress of a search, and the bounds that it had reported."""
    told: list[float] = []

    def progress(where: str, text: str) -> None:
        if where == stage and "bound " in text:
            told.append(float(text.split("bound ")[1]))
            if len(told) == after:
                raise KeyboardInterrupt

    return verify(network, specification, timeout=60.0, progress=progress, stages=cascade), told


def test_an_interrupt_keeps_the_bound_that_splitting_phases_reached() -> None:
    search = replace(FIRST_BRANCHING, most_work=math.inf)
    verdict, told = interrupted_in("branch", HARD, QUESTION, 8, (INTERVAL, CROWN, OPTIMIZED_CROWN, search))
    assert (verdict.verdict, verdict.reason) == ("unknown", "interrupted")
    assert len(told) == 8
    reached = verdict.margin_lower_bound
    assert reached is not None
    assert reached >= told[-1] - 1e-3 * abs(told[-1])
    assert reached <= 0.5


def test_an_interrupt_keeps_the_bound_that_splitting_boxes_reached() -> None:
    layers = random_layers(np.random.default_rng(3), (6, 40, 40, 3))
    network, low, high = dense(layers), np.zeros(6), np.full(6, 4.0)
    least = lowest_sampled(network, low, high, ROW)
    verdict, told = interrupted_in("boxes", network, question(low, high, [[(ROW, least - 0.02)]]), after=5)
    assert (verdict.verdict, verdict.reason) == ("unknown", "interrupted")
    reached = verdict.margin_lower_bound
    assert reached is not None
    assert told[-1] - 1e-3 * abs(told[-1]) <= reached <= 0.02


def save(path: Path) -> None:
    """The hard network as an ONNX file."""
    nodes, stored, value = [], [], "x"
    for k, (weight, bias) in enumerate(LAYERS):
        stored += [numpy_helper.from_array(weight, f"w{k}"), numpy_helper.from_array(bias, f"b{k}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"y{k}"], transB=1))
        value = f"y{k}"
        if k < len(LAYERS) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"r{k}"]))
            value = f"r{k}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 30), (value, 3))]
    graph = helper.make_graph(nodes, "hard", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_ctrl_c_at_the_command_line_is_an_answer(tmp_path: Path) -> None:
    save(tmp_path / "hard.onnx")
    lines = [f"(declare-const X_{i} Real)" for i in range(30)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0))\n(assert (<= X_{i} 1))" for i in range(30)]
    least = lowest_sampled(HARD, np.zeros(30), np.ones(30), [1.0, 0.0, 0.0])
    lines.append(f"(assert (<= Y_0 {least - 0.5:.6f}))")
    (tmp_path / "p.vnnlib").write_text("\n".join(lines))
    command = [sys.executable, "-c", "import sys; from mipverify.cli.main import main; sys.exit(main())"]
    command += ["verify", str(tmp_path / "hard.onnx"), str(tmp_path / "p.vnnlib"), "--json", "--timeout", "60"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs are started ignoring it
    )
    time.sleep(4.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 3, err
    answer = json.loads(out)
    assert (answer["verdict"], answer["reason"]) == ("unknown", "interrupted")
    assert answer["margin_lower_bound"] is None or answer["margin_lower_bound"] <= 0.5
    assert "Traceback" not in err
