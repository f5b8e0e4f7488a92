"""This process and others that lend it a hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mipverify.parallel.hands import C, R, T, Work

if TYPE_CHECKING:
    import subprocess
    from multiprocessing.connection import Connection

POLL = 0.005  # seconds between looks at a member that is not done


@dataclass(eq=False)
class _Member:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    busy: bool = False
    context: object = None  # the last one it was sent; a reference, so that no other object takes its place


class Crew:
    """This process and `workers - 1` others, which are started by the first `map` and join once they are ready.

    Whatever befalls a member, its part is done here: a crew changes how long something takes and nothing else.
    """

    def __init__(self, workers: int):
        self._wanted = max(0, workers - 1)
        self._members: list[_Member] = []

    @property
    def count(self) -> int:
        """How many items are worked on at once."""
        return 1 + len(self._ready())

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        """As `Hands.map`: members get the items after the first, one each; what is left over is done here."""
        self._start()
        results: list[R | None] = [None] * len(items)
        try:
            free = zip(range(1, len(items)), self._ready(), strict=False)
            away = {place: member for place, member in free if self._send(member, work, context, items[place])}
            for place, item in enumerate(items):
                if place not in away:
                    results[place] = work(context, item, stop)
            for place, member in away.items():
                answer = self._receive(member, stop)
                if answer is not _STOPPED:
                    results[place] = answer if answer is not _LOST else work(context, items[place], stop)
        finally:
            for member in [m for m in self._members if m.busy]:
                self._dismiss(member)  # an answer that nobody waited for must not be taken for a later one
        return results

    def close(self) -> None:
        """End the others."""
        for member in list(self._members):
            self._dismiss(member)
        self._wanted = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        from mipverify.parallel.process import start  # most questions need no other process

        while self._wanted:
            self._wanted -= 1
            self._members.append(_Member(*start("mipverify.parallel.member")))

    def _ready(self) -> list[_Member]:
        for member in list(self._members):
            try:
                if not member.ready and member.connection.poll():
                    member.connection.recv()
                    member.ready = True
            except (EOFError, OSError):
                self._dismiss(member)
        return [member for member in self._members if member.ready]

    def _send(self, member: _Member, work: Work[C, T, R], context: C, item: T) -> bool:
        member.busy = True
        try:
            if member.context is not context:
                member.connection.send(("context", context))
                member.context = context
            member.connection.send(("work", (work, item)))
        except OSError:
            self._dismiss(member)
            return False
        return True

    def _receive(self, member: _Member, stop: Callable[[], bool]) -> Any:
        try:
            while not member.connection.poll(POLL):
                if stop():
                    self._dismiss(member)
                    self._wanted += 1  # another one takes its place at the next `map`: a stop may end a stage only
                    return _STOPPED
            answer = member.connection.recv()
        except (EOFError, OSError):
            self._dismiss(member)
            return _LOST
        member.busy = False
        return answer

    def _dismiss(self, member: _Member) -> None:
        self._members.remove(member)
        member.process.kill()
        member.process.wait()
        member.connection.close()


_STOPPED, _LOST = object(), object()
