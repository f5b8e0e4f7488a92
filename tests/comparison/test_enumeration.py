"""How far two networks are apart agrees with an enumeration of all linear pieces of both; its witness shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipverify.engine.difference import differ_within, same_class, worst_difference
from mipverify.network import Affine, Network, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense
from mipverify.network.replay import replay_of
from mipverify.specification.perturbation import Perturbation
from tests.distortion.enumeration import Piece, Problem, least, pieces
from tests.distortion.nets import KINDS, image_of

GAP = 1e-3


def changed(network: Network, how: str, seed: int) -> Network:
    """A network whose weights are pruned, rounded or disturbed."""
    rng = np.random.default_rng(seed)

    def weights(array: np.ndarray) -> np.ndarray:
        if how == "pruned":
            return np.where(np.abs(array) < 0.3, 0, array)
        if how == "quantized":
            step = np.abs(array).max() / 7
            return (np.round(array / step) * step).astype(np.float32)
        return (array + 0.05 * rng.normal(size=array.shape)).astype(np.float32)

    nodes = []
    for node in network.nodes:
        if isinstance(node, Affine) and any(isinstance(term.operator, (Dense, Conv)) for term in node.terms):
            terms = []
            for term in node.terms:
                operator = term.operator
                if isinstance(operator, Dense):
                    operator = Dense(weights(operator.weight), operator.in_shape[:-1])
                elif isinstance(operator, Conv):
                    details = operator.strides, operator.pads, operator.dilations, operator.groups
                    operator = Conv(weights(operator.weight), operator.in_shape[2:], *details)
                terms.append(Term(term.source, operator))
            node = replace(node, terms=tuple(terms))
        nodes.append(node)
    return Network(tuple(nodes), network.output)


def of_both(first: Network, second: Network, image: np.ndarray, eps: float) -> list[tuple[Piece, Piece]]:
    """Every region in which both networks are affine, as a piece of the first and one of the second within it."""
    problem = Problem.around(image)
    problem = replace(
        problem, low=np.maximum(problem.low, problem.center - eps), high=np.minimum(problem.high, problem.center + eps)
    )
    found = []
    for one in pieces(first, problem):
        inside = replace(problem, matrix=one.matrix, offset=one.offset)
        found += [(one, two) for two in pieces(second, inside)]
    return found


def largest(found: list[tuple[Piece, Piece]], image: np.ndarray, eps: float) -> float:
    """The largest difference of an output, by a linear program for each and either sign in every region."""
    center = image.reshape(-1).astype(np.float64)
    low, high = np.maximum(0, center - eps), np.minimum(1, center + eps)
    best = 0.0
    for one, two in found:
        slopes, constants = (one.output[k] - two.output[k] for k in (0, 1))
        costs, starts = np.vstack([slopes, -slopes]), np.concatenate([constants, -constants])
        for solved, start in zip(least(-costs, two.matrix, two.offset, low, high), starts, strict=True):
            if solved is not None:
                best = max(best, float(start - solved[0]))
    return best


def other_class_possible(found: list[tuple[Piece, Piece]], image: np.ndarray, eps: float, slack: float) -> bool:
    """Whether one network may name one class where the other names another, by scores that exceed by `slack`."""
    center = image.reshape(-1).astype(np.float64)
    low, high = np.maximum(0, center - eps), np.minimum(1, center + eps)
    for one, two in found:
        for i in range(len(one.output[1])):
            for j in range(len(one.output[1])):
                if i == j:
                    continue
                matrix, offset = [*two.matrix], [*two.offset]
                for piece, winner in ((one, i), (two, j)):
                    for k in range(len(piece.output[1])):
                        if k != winner:
                            matrix.append(piece.output[0][k] - piece.output[0][winner])
                            offset.append(piece.output[1][winner] - piece.output[1][k] - slack)
                if least(np.zeros((1, len(center))), np.array(matrix), np.array(offset), low, high) != [None]:
                    return True
    return False


@pytest.mark.parametrize("how", ["pruned", "quantized", "disturbed", "other", "form"])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_enumeration(kind: str, how: str, tmp_path: Path) -> None:
    seed = 1 + list(KINDS).index(kind)
    first, eps = KINDS[kind](seed, tmp_path), 0.2
    if how in ("other", "form"):  # the same form, trained otherwise; another form
        (tmp_path / "other").mkdir()
        kinds = list(KINDS)
        other = {"dense": "skips", "skips": "dense"}.get(kind, kind) if how == "form" else kind
        assert other in kinds
        second = KINDS[other](seed + 10, tmp_path / "other")
        if how == "form" and other == kind:
            second = Network(
                (*second.nodes, Affine(second.output_shape, (Term(second.output, _same(second)),))), len(second.nodes)
            )
    else:
        second = changed(first, how, seed)
    image, _ = image_of(first, seed)
    regions = of_both(first, second, image, eps)
    expected, around = largest(regions, image, eps), Perturbation.around(image)
    found = worst_difference(first, second, around, eps, gap=GAP, timeout=60)
    assert found.status == "optimal", (expected, found)
    assert found.lower - 1e-5 <= expected <= found.upper + 1e-6, (expected, found)
    outputs = [
        replay_of(part).run(found.witness.input.reshape(1, -1))[0].astype(np.float64) for part in (first, second)
    ]
    assert found.lower == np.abs(outputs[0] - outputs[1]).max() == abs(outputs[0] - outputs[1])[found.output]
    assert np.abs(found.witness.input - image.reshape(-1)).max() <= eps * (1 + 1e-6)
    for share, word in ((1.01, "holds"), (0.97, "violated")):
        assert differ_within(first, second, around, eps, share * expected, timeout=60).verdict == word
    if other_class_possible(regions, image, eps, 1e-4):
        assert same_class(first, second, around, eps, timeout=60).verdict == "violated"
    elif not other_class_possible(regions, image, eps, -1e-4):
        assert same_class(first, second, around, eps, timeout=60).verdict == "holds"


def _same(network: Network) -> Dense:
    return Dense(np.eye(network.output_size))
