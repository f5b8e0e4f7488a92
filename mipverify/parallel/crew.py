"""This process and others that lend it a hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from mipverify.parallel.hands import C, I, R, Work
from mipverify.parallel.process import start

POLL = 0.005  # seconds between looks at a member that is not done


@dataclass(eq=False)
class _Member:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
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

    def map(self, work: Work[C, I, R], context: C, items: Sequence[I], stop: Callable[[], bool]) -> list[R | None]:
        """As `Hands.map`: members get the items after the first, one each; what is left over is done here."""
        while self._wanted:
            self._wanted -= 1
            self._members.append(_Member(*start("mipverify.parallel.member")))
        sent = [
            (place, member)
            for place, member in zip(range(1, len(items)), self._ready(), strict=False)
            if self._send(member, work, context, items[place])
        ]
        away = dict(sent)
        results: list[R | None] = [None] * len(items)
        try:
            for place, item in enumerate(items):
                if place not in away:
                    results[place] = work(context, item, stop)
            for place, member in sent:
                answer = self._receive(member, stop)
                if answer is not _STOPPED:
                    results[place] = answer if answer is not _LOST else work(context, items[place], stop)
                del away[place]
        finally:
            for member in away.values():  # an answer that nobody waited for must not be taken for a later one
                self._dismiss(member)
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

    def _ready(self) -> list[_Member]:
        for member in list(self._members):
            try:
                if not member.ready and member.connection.poll():
                    member.connection.recv()
                    member.ready = True
            except (EOFError, OSError):
                self._dismiss(member)
        return [member for member in self._members if member.ready]

    def _send(self, member: _Member, work: Work[C, I, R], context: C, item: I) -> bool:
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
                    return _STOPPED
            done, answer = member.connection.recv()
        except (EOFError, OSError):
            self._dismiss(member)
            return _LOST
        return answer if done else _LOST

    def _dismiss(self, member: _Member) -> None:
        if member not in self._members:
            return
        self._members.remove(member)
        member.process.kill()
        member.process.wait()
        member.connection.close()


_STOPPED, _LOST = object(), object()
