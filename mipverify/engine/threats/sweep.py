"""Transforms of an image as one question: cells of parameters, bounded together, halved until all are proven.

Before that, and between, parameters are looked for at which the image is classified otherwise. A counterexample is the
float32 image nearest to the transform at parameters that are told with it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.engine.budget import Clock
from mipverify.engine.driver import silent
from mipverify.engine.judge import LIKELY, meets
from mipverify.engine.verdict import Verdict, Witness
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.network.validation import validated
from mipverify.presolve.planes import fitted_slopes
from mipverify.proof.backward import lower_sides, propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.cells import Cells
from mipverify.proof.enclosure import Enclosure, enclose
from mipverify.proof.images import over_images
from mipverify.proof.interval import interval_of_images, tighten
from mipverify.proof.parts import row_chunks
from mipverify.proof.rows import unit_rows
from mipverify.specification import Condition
from mipverify.specification.threats.transform import Transforms

Floats = NDArray[np.float64]

BATCH_ENTRIES = 2**19  # node values of the cells that are bounded together
MOST_TOGETHER = 32
FIRST_REACH = 0.3  # pixels that the parameters of a first cell move an image by, at most, each to either side
PART_REACH = 0.1  # the same of the parts that a cell is cut into for its planes
MOST_PARTS = 64  # of one cell
MOST_HALVINGS = 6  # of a cell at once, where its bound is far off
GAIN = 1.6  # by which a halving brings a bound closer to the margin, about: how many are made at once
RANDOM = 256  # transforms that are tried before any bounds
WALKERS, ROUNDS = 8, 10  # the least of these are varied, ever less


@dataclass(eq=False)
class Sweep:
    """One question about transforms.

    judged: conditions on what the original gives. conditions: on the network's scores. replay: the original. tried: how
    many transforms were evaluated; bounded: how many cells. parameters: of the witness. least: the least margin that
    was met, and where.
    """

    network: Network
    transforms: Transforms
    conditions: tuple[Condition, ...]
    judged: tuple[Condition, ...]
    clock: Clock
    seed: int = 0
    progress: Callable[[str, str], None] = silent
    replay: Replay = field(init=False)
    margins: Network = field(init=False)
    witness: Witness | None = None
    parameters: dict[str, float] | None = None
    tried: int = 0
    bounded: int = 0
    unstable: NDArray[np.int64] | None = None
    least: tuple[float, Floats] | None = None

    def __post_init__(self) -> None:
        self.margins = margin_network(self.network, self.conditions)
        self._rng = np.random.default_rng([self.seed, *b"sweep"])
        self._cells = Cells(self.transforms, self.margins)
        ends = np.stack([np.zeros_like(self.transforms.inward), -self.transforms.inward, self.transforms.inward])
        self.replay = validated(self.network, self.transforms.values(ends).astype(np.float32))

    def run(self) -> Verdict:
        """Look for a counterexample, then prove cell after cell."""
        stage = "attack"
        with self.clock.stage(stage):
            self.progress(stage, "")
            self._attack()
        if self.witness is None:
            stage = "cells"
            with self.clock.stage(stage):
                self.progress(stage, "")
                self._prove()
        return self._verdict(stage)

    def _verdict(self, stage: str) -> Verdict:
        lower = float(self._cells.lower.min())
        holds = self.witness is None and not len(self._cells) and lower > 0
        word: Any = "violated" if self.witness is not None else "holds" if holds else "unknown"
        worst = self.parameters
        if worst is None and self.least is not None:
            worst = self.transforms.named(self.least[1])
        statistics = {
            "unstable_relus": [] if self.unstable is None else [int(v) for v in self.unstable],
            "binaries": 0,
            "nodes": self.bounded,
            "transforms_tried": self.tried,
            "parts": self.bounded,
            "worst": worst,
            "seconds": {name: round(seconds, 4) for name, seconds in self.clock.stages.items()},
        }
        return Verdict(
            word,
            self.clock.elapsed(),
            stage,
            margin_lower_bound=lower if holds else None,
            witness=self.witness,
            statistics=statistics,
            reason="time" if word == "unknown" else "",
            network={"path": self.network.path, "sha256": self.network.sha256},
            property={"path": None, "sha256": None},
            arithmetic=self.network.arithmetic,
        )

    def _evaluate(self, parameters: Floats) -> Floats:
        """The least margins (N,) at parameters (N, k); those that look like violations are judged."""
        found = np.empty(len(parameters))
        for begin in range(0, len(parameters), self._together):
            some = slice(begin, begin + self._together)
            x = self.transforms.values(parameters[some]).astype(np.float32)
            found[some] = self.margins.forward(x.reshape(-1, *self.network.input_shape)).reshape(len(x), -1).min(axis=1)
        self.tried += len(parameters)
        low = int(found.argmin())
        if self.least is None or found[low] < self.least[0]:
            self.least = float(found[low]), parameters[low]
        for k in np.argsort(found)[:WALKERS].tolist():
            if self.witness is None and found[k] <= LIKELY * (1 + abs(found[k])):
                self._judge(parameters[k])
        return found

    def _judge(self, parameters: Floats) -> None:
        """Replay the image at parameters (k,), moved inside of what is allowed."""
        inside = np.clip(parameters, -self.transforms.inward, self.transforms.inward)
        x = self.transforms.float32(inside)
        if x is None or not self.transforms.contains(inside):
            return
        output = self.replay.run(x[None])[0]
        if any(meets(self.network, condition, x, output) for condition in self.judged):
            self.witness, self.parameters = Witness(x, output.copy()), self.transforms.named(inside)

    @property
    def _together(self) -> int:
        """How many inputs are taken through the network at once."""
        return max(1, min(MOST_TOGETHER, BATCH_ENTRIES // max(1, sum(self._sizes()))))

    def _sizes(self) -> list[int]:
        return [int(np.prod(node.shape)) for node in self.margins.nodes]

    def _attack(self) -> None:
        """The middle, ends and corners, random parameters, and walks from those with the least margins."""
        radius = self.transforms.inward
        count = len(radius)
        signs = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=count)))
        points = np.concatenate([signs, self._rng.uniform(-1, 1, (RANDOM, count))]) * radius
        least = self._evaluate(points)
        size = 0.25
        for _ in range(ROUNDS):
            if self.witness is not None or self.clock.over():
                return
            chosen = np.argsort(least)[:WALKERS]
            steps = self._rng.normal(size=(4, WALKERS, count)) * size * radius
            near = np.clip(points[chosen] + steps, -radius, radius).reshape(-1, count)
            least = np.concatenate([least[chosen], self._evaluate(near)])
            points = np.concatenate([points[chosen], near])
            size *= 0.6

    def _prove(self) -> None:
        """Bound open cells, those first that look worst, and halve what is not proven."""
        queue: list[tuple[float, int]] = []
        for number in self._first_cells():
            heapq.heappush(queue, (0.0, number))
        while queue and self.witness is None and not self.clock.over():
            numbers = [heapq.heappop(queue)[1] for _ in range(min(len(queue), self._together))]
            images, bounds = self._bound(numbers)
            margins = bounds.lower[bounds.network.output].reshape(len(numbers), -1).min(axis=1)
            proven = (margins > 0) & np.asarray(bounds.finite())
            for entry in np.flatnonzero(proven).tolist():
                self._cells.close(numbers[entry], images, bounds, entry)
            left = np.flatnonzero(~proven)
            if len(left):
                least = self._evaluate(images.center[left])
                for entry, margin in zip(left.tolist(), least.tolist(), strict=True):
                    short = margin - float(margins[entry]) if np.isfinite(margins[entry]) else np.inf
                    times = np.log(short / max(margin, 1e-3)) / np.log(GAIN) if short > 0 else 1
                    for number in self._halved(numbers[entry], int(np.clip(np.ceil(times), 1, MOST_HALVINGS))):
                        heapq.heappush(queue, (margin, number))
            self.progress("cells", f"{len(self._cells)} open of {self.bounded}")

    def _first_cells(self) -> list[int]:
        """Cells that move the image by little, of which there may be many already."""
        ready, todo = [], self._cells.open
        while todo:
            number = todo.pop()
            reach = self._reach(*self._cells.cell(number))
            axis = int(reach.argmax()) if len(reach) else 0
            if not len(reach) or reach[axis] <= FIRST_REACH:
                ready.append(number)
            else:
                todo.extend(self._cells.halve(number, axis))
        return ready

    def _halved(self, number: int, times: int) -> list[int]:
        """The cells that some halvings make of one, each along the parameter that moves the image most."""
        numbers = [number]
        for _ in range(times):
            numbers = [
                half
                for one in numbers
                for half in self._cells.halve(one, int(self._reach(*self._cells.cell(one)).argmax()))
            ]
        return numbers

    def _reach(self, low: Floats, high: Floats) -> Floats:
        """About how many pixels each parameter of a cell (k,) moves what is in the image, to either side."""
        u, v = self.transforms.centered
        weight = np.abs(self.transforms.image).sum(axis=0).reshape(-1) + 1e-12
        length = float((np.hypot(u, v) * weight).sum() / weight.sum())
        unit = {"rotation": np.pi / 180 * length, "scaling": length, "right": 1.0, "down": 1.0}
        return np.asarray(0.5 * (high - low) * np.array([unit[name] for name in self.transforms.names]))

    def _bound(self, numbers: list[int]) -> tuple[Enclosure, Bounds]:
        """What is proven of the margins in some cells."""
        ends = [self._cells.cell(number) for number in numbers]
        low, high = (np.stack([pair[side] for pair in ends]) for side in (0, 1))
        reach = np.max([self._reach(*pair) for pair in ends], axis=0)
        parts = np.maximum(1, np.ceil(reach / PART_REACH)).astype(int)
        while np.prod(parts) > MOST_PARTS:
            parts[parts.argmax()] -= 1
        images = enclose(self.transforms, low, high, fitted_slopes(self.transforms, low, high, parts), parts)
        bounds = interval_of_images(self.margins, images)
        self.bounded += len(numbers)
        self.unstable = bounds.unstable_counts().max(axis=0)[: len(self.network.relus)]
        output = self.margins.output
        entries, units = np.nonzero(~(bounds.lower[output].reshape(len(numbers), -1) > 0))
        surrogate, found = bounds.outward(np.float32), []
        for part in row_chunks(self.margins, output, len(units)):
            rows = unit_rows(self.margins, output, units[part], entries[part], surrogate.like)
            found.append(lower_sides(over_images(propagate_backward(surrogate, rows), images)))
        return images, tighten(bounds, found, further=False)
