"""`mipverify.Session`: many questions about one model, which is read, opened and compared with its file once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike
from types import TracebackType
from typing import Any

from mipverify.api.inputs import normalization
from mipverify.api.limits import require_limits, require_seconds
from mipverify.api.progress import follower, function
from mipverify.api.questions import Reading, batch, module_of, sets
from mipverify.engine.session import Limits, Questions
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.specification import Specification, load_vnnlib
from mipverify.specification.exact import shorten


class Session:
    """Questions about one model: `with mipverify.Session("net.onnx") as session: session.verify_all(questions)`.

    A question is a `Specification`, the path of a VNN-LIB file, or a tuple (x, label, eps) of an input, its label (None
    for what the model predicts) and a radius. Every answer is that of `mipverify.verify`, in whatever order
    questions come.

    What is kept: the network, its original in ONNX Runtime, `workers` processes once a question was hard enough
    to start them, and bounds of input sets, which questions about sets inside of these begin with.

    model, arithmetic, solver, seed, workers: as in `mipverify.verify`; a torch module needs input_shape. norm, domain:
    of (x, label, eps). mean, std, transform, layout, input_shape, output: how a model and its inputs are read.
    Use one session from one thread at a time.

    Raises InputError where the model cannot be read or the arguments do not fit it.
    """

    def __init__(
        self,
        model: Any,
        *,
        norm: str = "linf",
        domain: Any = (0, 1),
        mean: object = 0,
        std: object = 1,
        transform: Any = None,
        layout: str | None = None,
        input_shape: Sequence[int] | None = None,
        output: int | str | None = None,
        solver: str = "auto",
        seed: int = 0,
        workers: int = 1,
        arithmetic: str = "real",
    ):
        if transform is not None and (known := normalization(transform)) is not None:
            if (mean, std) != (0, 1):
                raise InputError("the transform states a mean and std: give either")
            (mean, std), transform = known, None
        _, seed, workers, _ = require_limits(0, seed, workers)
        network = _network(model, Reading(input_shape, output, transform=transform))
        self._reading = Reading(layout=layout, mean=mean, std=std)
        self._ball = {"norm": norm, "domain": domain}
        self._questions: Questions | None = Questions(
            network, solver=solver, seed=seed, workers=workers, arithmetic=arithmetic
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and forget what is kept; no more questions can be asked."""
        if self._questions is not None:
            self._questions.close()
        self._questions = None

    @property
    def network(self) -> Network:
        """The network that is asked about."""
        return self._open().network

    def verify(
        self,
        question: Any,
        *,
        timeout: float = 300.0,
        proof: bool = False,
        progress: Callable[[str, str], None] | None = None,
    ) -> Verdict:
        """The verdict on one question. timeout: seconds; proof, progress: as in `mipverify.verify`.

        Raises InputError where question and network do not fit.
        """
        limits = Limits(require_seconds(timeout), proof, follower(progress))
        return self._open().verify(self._specification(question), limits)

    def verify_all(
        self,
        questions: Iterable[Any],
        *,
        timeout: float = 300.0,
        proof: bool = False,
        progress: Callable[[int, int], None] | bool | None = None,
    ) -> tuple[Verdict | InputError, ...]:
        """The answer to each question: its verdict, or what is wrong with it, which leaves the others as they are.

        Questions about boxes are bounded and attacked together; what that leaves open goes on by itself. timeout:
        seconds for each question. progress: called with the number of answers so far and of questions; True shows a bar
        in a notebook or on stderr. An interrupt ends it: what is not decided by then is unknown.
        """
        limits = Limits(require_seconds(timeout), proof)
        engine, (asked, refused) = self._open(), self._read(questions)
        found: dict[int, Verdict | InputError] = {**refused}
        total = len(asked) + len(refused)
        with suppress(KeyboardInterrupt), ExitStack() as stack:
            told = stack.enter_context(_bar(total)) if progress is True else function(progress)
            for place, answer in engine.answers(asked, limits):
                found[place] = answer
                if told is not None:
                    told(len(found), total)
        return tuple(found.get(place) or engine.unasked(asked[place]) for place in range(total))

    def answers(
        self, questions: Iterable[Any], *, timeout: float = 300.0, proof: bool = False
    ) -> Iterator[tuple[int, Verdict | InputError]]:
        """The same one by one as they are reached: the place of a question, and its answer."""
        engine, (asked, refused) = self._open(), self._read(questions)
        yield from refused.items()
        yield from engine.answers(asked, Limits(require_seconds(timeout), proof))

    def _read(self, questions: Iterable[Any]) -> tuple[dict[int, Specification], dict[int, InputError]]:
        """Questions as the engine takes them, by their places, and what is wrong with others."""
        asked: dict[int, Specification] = {}
        refused: dict[int, InputError] = {}
        if isinstance(questions, str) or not isinstance(questions, Iterable):
            raise InputError(f"questions must be a list of questions, not {shorten(repr(questions))}")
        for place, question in enumerate(questions):
            try:
                asked[place] = self._specification(question)
            except InputError as error:
                refused[place] = error
        return asked, refused

    def _open(self) -> Questions:
        if self._questions is None:
            raise InputError("the session is closed")
        return self._questions

    def _specification(self, question: Any) -> Specification:
        """A question as the engine takes it. Raises InputError."""
        if isinstance(question, Specification):
            return question
        if isinstance(question, (str, PathLike)):
            return load_vnnlib(question)
        if not (isinstance(question, tuple) and len(question) == 3):
            raise InputError(
                f"a question is a Specification, the path of a VNN-LIB file or (x, label, eps), not {_shown(question)}"
            )
        x, label, eps = question
        if eps is None:
            raise InputError("(x, label, eps): eps is needed")
        asked = batch(self._open().network, x, label, self._reading)
        if not asked.single:
            raise InputError(f"(x, label, eps): one input is needed, not {len(asked.x)}")
        return sets(asked, eps, targets=None, mask=None, **self._ball)[0]


def _network(model: Any, reading: Reading) -> Network:
    module, shape = module_of(model, reading)
    if module is None:
        if reading.output is not None or reading.transform is not None:
            raise InputError("transform and output are for torch modules: a file states both itself")
        return load(str(model)) if isinstance(model, (str, PathLike)) else model
    if shape is None:
        raise InputError("input_shape is needed: a session reads a torch module before it is asked about any input")
    from mipverify.api.modules import answering, classifier

    return classifier(answering(module, reading.output, reading.transform), tuple(shape))


def _shown(question: Any) -> str:
    return f"a tuple of {len(question)}" if isinstance(question, tuple) else type(question).__name__


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar in a notebook, or else on stderr."""
    from mipverify.report.notebook import NotebookBar, in_notebook

    if in_notebook():
        with NotebookBar() as bar:
            yield bar.step
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda done, total: shown.update(task, completed=done)
