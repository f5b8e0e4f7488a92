"""What stays in its process comes back as the same object, wherever in what is sent it stood."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mipverify.parallel.residents import Abroad, Home, Resident


@dataclass(frozen=True, eq=False)
class Kept:
    """Looked at elsewhere by `label`; the load stays."""

    label: str
    load: list[int]
    under: Resident | None = None

    def stand_in(self) -> Kept:
        return Kept(self.label, [], self.under)


def test_residents_come_back_as_they_were() -> None:
    home, abroad = Home(), Abroad()
    inner = Kept("inner", [1])
    outer = Kept("outer", [2], inner)
    there = abroad.loads(home.dumps({"one": outer, "two": [inner, outer]}))
    assert (there["one"].label, there["one"].load, there["one"].under.label) == ("outer", [], "inner")
    assert there["two"] == [there["one"].under, there["one"]]  # the same objects, once more
    back = home.loads(abroad.dumps((there["two"], Kept("made there", [3], there["one"]))))
    assert back[0][0] is inner
    assert back[0][1] is outer
    assert back[1].load == [3]
    assert back[1].under is outer


def test_what_was_sent_earlier_is_known_by_the_same_object() -> None:
    home, abroad = Home(), Abroad()
    kept = Kept("a", [])
    context = abroad.loads(home.dumps([kept]))
    assert abroad.loads(home.dumps(kept)) is context[0]
    assert home.loads(abroad.dumps(context))[0] is kept


def test_what_was_forgotten_is_sent_anew_and_no_longer_taken_back() -> None:
    home, abroad = Home(), Abroad()
    context, item = Kept("context", []), Kept("item", [])
    there = abroad.loads(home.dumps(context))
    mark = home.mark()
    old = abroad.loads(home.dumps(item))
    home.forget(mark)
    assert abroad.loads(home.dumps(context)) is there
    assert home.loads(abroad.dumps(abroad.loads(home.dumps(item)))) is item
    with pytest.raises(KeyError):
        home.loads(abroad.dumps(old))
