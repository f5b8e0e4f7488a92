"""What a proof claims: its cases, and that they cover the property that it is checked against."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from mipverify_check.container import Proof, entries, integer, rational, record
from mipverify_check.errors import BadInputError, RejectedError
from mipverify_check.network import Network
from mipverify_check.onnx_file import read_file
from mipverify_check.parameters import ParameterMap, read_map
from mipverify_check.vnnlib import Linear, Property, Row, parse, row

LONGEST_SUM = 2**15  # bits of the denominator of an exact sum, which grows with each summand


@dataclass(frozen=True)
class Claim:
    """What a proof shows: in words, and what exactly was asked as a JSON object (docs/proof-format.md, section 6)."""

    words: str
    asked: dict[str, Any] = field(compare=False)

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Ball:
    """||(x - center) / scale|| <= radius, in l_1 or l_2; entries of scale 0 are fixed at the center."""

    norm: str
    center: np.ndarray
    scale: np.ndarray
    radius: Fraction


@dataclass(frozen=True)
class Case:
    """No x in the box (inputs, 2), nor in what the ball and matrix @ x <= offset leave of it, meets a condition.

    A condition is met where all of its rows hold. terms: the same rows as they are written, `sum <= 0`. map: what makes
    the network's input of x, None where x is that input.
    """

    box: np.ndarray
    ball: Ball | None
    matrix: np.ndarray | None
    offset: np.ndarray | None
    conditions: list[list[Row]]
    terms: list[list[Linear]]
    map: ParameterMap | None = None


def read_cases(proof: Proof, network: Network) -> list[Case]:
    """The cases of a proof. Raises RejectedError."""
    cases = []
    outputs = network.output.size
    for given in entries(proof.header.get("cases")):
        parts = record(given, ("box", "conditions"), ("region", "map"))
        made = read_map(proof, parts["map"], network.nodes[0].size) if "map" in parts else None
        size = network.nodes[0].size if made is None else made.size
        box = proof.packed(parts["box"], size, 2).astype(np.float64)
        region = record(parts.get("region", {}), (), ("norm", "center", "scale", "radius", "matrix", "offset"))
        ball = matrix = offset = None
        if "norm" in region:
            center, scale = (proof.packed(region.get(k), size).astype(np.float64) for k in ("center", "scale"))
            ball = Ball(str(region["norm"]), center, scale, rational(region.get("radius")))
            if ball.norm not in ("l1", "l2") or (scale < 0).any() or ball.radius < 0:
                raise RejectedError("a ball of a kind that is not known")
        if "matrix" in region:
            matrix = proof.array(region["matrix"], (None, size), "f").astype(np.float64)
            offset = proof.array(region.get("offset"), (len(matrix),), "f").astype(np.float64)
        read = [[_row(r, size, outputs) for r in entries(rows)] for rows in entries(parts["conditions"])]
        if any(not rows for rows in read):
            raise RejectedError("a condition without rows")
        conditions = [[row for row, _ in rows] for rows in read]
        terms = [[written for _, written in rows] for rows in read]
        cases.append(Case(box, ball, matrix, offset, conditions, terms, made))
    return cases


def _row(given: Any, inputs: int, outputs: int) -> tuple[Row, Linear]:
    parts = record(given, ("outputs", "offset"), ("inputs", "strict"))
    terms: Linear = {None: -rational(parts["offset"])}
    for key, count in (("outputs", outputs), ("inputs", inputs)):
        for pair in entries(parts.get(key, [])):
            if len(entries(pair)) != 2:
                raise RejectedError("a pair was expected")
            place = integer(pair[0], count)
            variable = place if key == "inputs" else -1 - place
            if variable in terms:
                raise RejectedError("a row names a variable twice")
            terms[variable] = rational(pair[1])
    strict = parts.get("strict", False)
    if not isinstance(strict, bool):
        raise RejectedError("whether a row is strict was expected as true or false")
    found = row(terms, strict)
    if not isinstance(found, Row):
        raise RejectedError("a row without variables")
    return found, terms


def read_property(path: str, network: Network) -> tuple[Property, str]:
    """A VNN-LIB file about a network, and its SHA-256. Raises BadInputError."""
    stored, content = read_file(path)
    try:
        asked = parse(content.decode("utf-8"), path)
    except UnicodeDecodeError:
        raise BadInputError(f"{path}: is no text") from None
    if asked.inputs != network.nodes[0].size or asked.outputs != network.output.size:
        raise BadInputError(f"{path}: speaks of {asked.inputs} inputs and {asked.outputs} outputs")
    return asked, hashlib.sha256(stored).hexdigest()


def show_covered(proof: Proof, cases: list[Case], network: Network, path: str | None) -> Claim:
    """Show that the cases cover the question; returns what is claimed. path: of the property, if given."""
    arithmetic = proof.header["arithmetic"]
    claim = _covered(proof, cases, network, path, arithmetic == "float32")
    words = claim.words if arithmetic == "real" else f"of every float32 evaluation, {claim.words}"
    return Claim(words, {**claim.asked, "arithmetic": arithmetic})


def _covered(proof: Proof, cases: list[Case], network: Network, path: str | None, floats: bool) -> Claim:
    """The same. floats: whether float32 inputs stand for sets that hold none, and must be covered, too."""
    question = proof.header.get("question")
    kind = question.get("kind") if isinstance(question, dict) else None
    if network.monotone:
        _require_order_only(cases)
    mapped = sum(case.map is not None for case in cases)
    if mapped and (kind != "sets" or floats):
        raise RejectedError("a case is about parameters, of which its question knows nothing")
    if kind == "vnnlib":
        parts = record(question, ("kind", "sha256"))
        if path is None:
            raise BadInputError("the proof is about a VNN-LIB property: name its file")
        asked, sha256 = read_property(path, network)
        if sha256 != parts["sha256"]:
            raise RejectedError("it is about another property: the SHA-256 differs")
        _cover_clauses(asked, cases, floats)
        return Claim(f"the property {path} holds", {"kind": kind, "sha256": sha256})
    if path is not None:
        raise BadInputError(f"the proof is not about a property file, but names its question itself: leave out {path}")
    if kind == "robustness":
        return _cover_ball(proof, question, cases, network, floats)
    if kind == "sets":
        record(question, ("kind",))
        words = f"no input of the {len(cases)} sets that the proof names meets a condition that it names"
        if mapped:
            words += f"; {mapped} of these are images of parameters under maps that it names, too"
        return Claim(words, {"kind": kind})
    raise RejectedError("its question is of a kind that is not known")


def _require_order_only(cases: list[Case]) -> None:
    """Behind functions that keep the order of the outputs, conditions must compare two outputs each."""
    for case in cases:
        for found in (found for rows in case.conditions for found in rows):
            values = [v for _, v in found.key]
            if (
                len(values) != 2
                or values[0] + values[1] != 0
                or found.constant
                or found.key[0][0] >= 0
                or found.key[1][0] >= 0
            ):
                raise RejectedError("conditions behind a last Softmax or Sigmoid must compare two outputs")


class _Known:
    """Rows that hold: the strongest of each kind, and the box that follows from them."""

    def __init__(self, size: int):
        self.rows: dict[Any, Row] = {}
        self.lower: list[Fraction | None] = [None] * size
        self.upper: list[Fraction | None] = [None] * size

    def add(self, rows: Sequence[Row]) -> bool:
        """Whether the box has become smaller."""
        smaller = False
        for found in rows:
            if found.key not in self.rows or self.rows[found.key].follows_from(found):
                self.rows[found.key] = found
            (at, sign), *others = found.key
            if at >= 0 and not others:
                side, bound = (self.upper if sign > 0 else self.lower), -sign * found.constant
                old = side[at]
                side[at] = bound if old is None else min(old, bound) if sign > 0 else max(old, bound)
                smaller = True
        return smaller

    def implies(self, wanted: Row | bool) -> bool:
        if not isinstance(wanted, Row):
            return wanted
        return wanted.key in self.rows and wanted.follows_from(self.rows[wanted.key])

    def box_in(self, case: Case, floats: bool) -> bool:
        """Whether the box lies in that of a case; with `floats` also the float32 inputs that stand for it."""
        return all(
            low is not None
            and high is not None
            and at_most(below, low)
            and at_least(above, high)
            and not (floats and _stands_outside(low, high, below, above, case))
            for low, high, (below, above) in zip(self.lower, self.upper, case.box.tolist(), strict=True)
        )

    def empty(self) -> bool:
        pairs = zip(self.lower, self.upper, strict=True)
        return any(low is not None and high is not None and low > high for low, high in pairs)


def _stands_outside(low: Fraction, high: Fraction, below: float, above: float, case: Case) -> bool:
    """Whether no float32 lies from low to high, and one that is nearest to them is not held by a case, between below
    and above there: where it is cut further, such inputs may lie outside."""
    near = np.float32(float(low))
    around = [Fraction(float(v)) for v in (near, np.nextafter(near, -np.inf), np.nextafter(near, np.inf))]
    if any(low <= value <= high for value in around):
        return False
    least = min(abs(value - low) for value in around)
    held = all(Fraction(below) <= v <= Fraction(above) for v in around if abs(v - low) == least)
    return not held or case.ball is not None or case.matrix is not None


def at_most(a: float, b: Fraction) -> bool:
    """Whether a <= b, exactly."""
    above, below = a.as_integer_ratio()
    return above * b.denominator <= b.numerator * below


def at_least(a: float, b: Fraction) -> bool:
    """Whether a >= b, exactly."""
    above, below = a.as_integer_ratio()
    return above * b.denominator >= b.numerator * below


def _cover_clauses(asked: Property, cases: list[Case], floats: bool) -> None:
    common = _Known(asked.inputs)
    common.add(asked.common)
    if common.empty():
        return  # no input meets any clause
    inside = {id(case): common.box_in(case, floats) for case in cases}
    for number, clause in enumerate(asked.clauses):
        known = copy.copy(common)
        known.rows, known.lower, known.upper = dict(common.rows), list(common.lower), list(common.upper)
        narrower = known.add(clause)
        if narrower and known.empty():
            continue
        held = (known.box_in(case, floats) if narrower else inside[id(case)] for case in cases if _covers(case, known))
        if not any(held):
            raise RejectedError(f"no case of the proof covers clause {number} of the property")


def _covers(case: Case, known: _Known) -> bool:
    """Whether a case claims that nothing in its box meets rows that are known."""
    if case.ball is not None:
        return False
    if case.matrix is not None and case.offset is not None:
        for coefficients, offset in zip(case.matrix, case.offset, strict=True):
            terms: Linear = {int(i): Fraction(coefficients[i]) for i in np.flatnonzero(coefficients)}
            if not known.implies(row(terms | {None: -Fraction(offset)}, False)):
                return False
    return any(all(map(known.implies, rows)) for rows in case.conditions)


def _cover_ball(proof: Proof, question: Any, cases: list[Case], network: Network, floats: bool) -> Claim:
    names = ("kind", "image", "label", "targets", "eps", "norm", "domain", "normalization", "numbers", "data")
    parts = record(question, names[:8], names[8:])
    size, outputs, eps = network.nodes[0].size, network.output.size, rational(parts["eps"])
    image = proof.packed(parts["image"], size, kind="f").astype(np.float64)
    label, targets = integer(parts["label"], outputs), [integer(t, outputs) for t in entries(parts["targets"])]
    domain = None if parts["domain"] is None else [rational(v) for v in entries(parts["domain"])]
    if eps < 0 or parts["norm"] not in ("linf", "l1", "l2") or (domain is not None and len(domain) != 2):
        raise RejectedError("its question is not one of robustness")
    numbers = [rational(v) for v in entries(parts.get("numbers", []))]
    which = np.zeros((size, 2), np.int64)
    if parts["normalization"] is not None:
        which = proof.packed(parts["normalization"], size, 2, "iu").astype(np.int64)
        if which.size and not (which.min() >= 0 and which.max() < len(numbers)):
            raise RejectedError("its normalization names no numbers")
    else:
        numbers = []
    asked = _Ball(image, eps, parts["norm"], domain, numbers, which)
    for case in cases:
        asked.require_within(case, floats)
    claimed = [condition for case in cases for condition in case.conditions]
    wanted = [row({-1 - label: Fraction(1), -1 - target: Fraction(-1)}, False) for target in targets if target != label]
    if not targets or label in targets or any([w] not in claimed for w in wanted):
        raise RejectedError("the conditions of its cases are not those of the question")
    pairs, each = _normalization(which, numbers)
    said = {
        "kind": "robustness",
        "image": hashlib.sha256(image.tobytes()).hexdigest(),
        "label": label,
        "targets": targets,
        "eps": _said(eps),
        "norm": parts["norm"],
        "domain": None if domain is None else [_said(limit) for limit in domain],
        "normalization": pairs and {"pairs": pairs, "which": hashlib.sha256(each.tobytes()).hexdigest()},
    }
    of = f", normalized by (mean, deviation) {', '.join(map(str, pairs))}" if pairs else ""
    return Claim(
        f"no point within {parts['eps']} in {parts['norm']} of the image with SHA-256 {said['image'][:16]} (domain "
        f"{parts['domain']}{of}) has a score of {targets} that reaches that of {label}",
        said,
    )


@dataclass(frozen=True)
class _Ball:
    """The pixels of a robustness question, and what an input of the network is made of: (p - mean) / std.

    which: (n, 2), the places of each entry's mean and std in `numbers`; no numbers: inputs are pixels.
    """

    image: np.ndarray
    eps: Fraction
    norm: str
    domain: list[Fraction] | None
    numbers: list[Fraction]
    which: np.ndarray

    def require_within(self, case: Case, floats: bool) -> None:
        """Raise RejectedError unless the set of a case contains that of the question."""
        eps, domain, numbers, ball = self.eps, self.domain, self.numbers, case.ball
        stretch, shift = Fraction(0), Fraction(0)  # of the question's ball against that of the case
        columns = [self.image, case.box[:, 0], case.box[:, 1], self.which[:, 0], self.which[:, 1]]
        columns += [np.zeros(1)] * 2 if ball is None else [ball.center, ball.scale]
        for (pixel, low, high, mean_at, std_at, middle, step), count in _distinct(columns):
            p = Fraction(pixel)
            mean, std = (numbers[mean_at], numbers[std_at]) if numbers else (Fraction(0), Fraction(1))
            if std <= 0:
                raise RejectedError("a standard deviation that is not positive")
            # low <= max(a, b) where it is at most one of them, and so for high; only an empty box may fail this
            least, most = ([p - eps], [p + eps]) if domain is None else ([domain[0], p - eps], [domain[1], p + eps])
            if numbers:
                least, most = ([(v - mean) / std for v in side] for side in (least, most))
            inside = any(at_most(low, v) for v in least) and any(at_least(high, v) for v in most)
            if floats or not inside:
                low_end, high_end = max(least), min(most)
                out = not inside or _stands_outside(low_end, high_end, low, high, case)
                if out and low_end <= high_end:
                    raise RejectedError("the box of a case does not contain that of the question")
            if ball is not None and not step > 0:
                raise RejectedError("the ball of a case is not that of the question")
            if ball is not None:
                stretch = max(stretch, 1 / (std * Fraction(step)))
                shift += count * abs((p - mean) / std - Fraction(middle)) / Fraction(step)
                if shift.denominator.bit_length() > LONGEST_SUM:
                    raise RejectedError("the ball of a case has too many digits")
        smaller = ball is not None and (ball.norm != self.norm or ball.radius < eps * stretch + shift)
        if case.matrix is not None or smaller:
            raise RejectedError("the region of a case is not that of the question")


def _distinct(columns: Sequence[np.ndarray]) -> list[tuple[tuple[Any, ...], int]]:
    """The distinct rows of columns, of which some have one entry for all rows; and how often each occurs."""
    kind: np.ndarray = np.zeros(1, np.int64)
    for column in columns:
        values, at = np.unique(column, return_inverse=True)
        kind = kind * len(values) + at
        if len(kind) > 1 and kind.max() > 2**40:
            kind = np.unique(kind, return_inverse=True)[1]
    _, first, counts = np.unique(kind, return_index=True, return_counts=True)
    rows = zip(*(np.broadcast_to(column, kind.shape)[first].tolist() for column in columns), strict=True)
    return list(zip(rows, counts.tolist(), strict=True))


def _normalization(which: np.ndarray, numbers: list[Fraction]) -> tuple[list[tuple[str, str]] | None, np.ndarray]:
    """The pairs of mean and deviation in the order in which entries first have them; and which of them each has."""
    if not numbers:
        return None, which[:0]
    held = {pair: (_said(numbers[pair[0]]), _said(numbers[pair[1]])) for pair in set(map(tuple, which.tolist()))}
    place: dict[tuple[str, str], int] = {}
    each = [place.setdefault(held[pair], len(place)) for pair in map(tuple, which.tolist())]
    return list(place), np.array(each, np.int64)


def _said(value: Fraction) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no integers of more than some thousand digits
        raise RejectedError("a number of the question has too many digits") from None
