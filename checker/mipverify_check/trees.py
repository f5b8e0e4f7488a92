"""Case distinctions as binary trees in preorder: phases of ReLUs, and parts of the input box."""

from __future__ import annotations

import numpy as np

from mipverify_check.container import integer
from mipverify_check.errors import RejectedError

MOST_NODES = 2**24  # of a tree, each as often as a leaf lies below it
Splits = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by pre-activation node: units, leaves, signs


def phase_leaves(tree: np.ndarray, nodes: dict[int, tuple[int, int]]) -> tuple[int, Splits]:
    """The number of leaves of a tree (N, 2) in preorder, and their splits.

    nodes: by site, the node of its pre-activation and how many units that has.
    """
    found: dict[int, list[tuple[int, int, int]]] = {}
    path: list[tuple[int, int, int]] = []  # node, unit, sign of the child that is open
    leaves, total, done = 0, 0, False
    for site, unit in tree.tolist():
        if done:
            raise RejectedError("its tree goes on behind its end")
        if site >= 0:
            node, size = nodes[site]
            path.append((node, integer(unit, size), 1))
            continue
        if (site, unit) != (-1, -1):
            raise RejectedError("its tree has a node that is neither a split nor a leaf")
        for node, unit, sign in path:
            found.setdefault(node, []).append((unit, leaves, sign))
        leaves, total = leaves + 1, total + len(path)
        if total > MOST_NODES:
            raise RejectedError("its tree is too large")
        while path and path[-1][2] == -1:
            path.pop()
        done = not path
        if path:
            path[-1] = (*path[-1][:2], -1)
    if not done:
        raise RejectedError("its tree has no end")
    return leaves, {node: tuple(np.array(held).T) for node, held in found.items()}


def box_parts(
    axis: np.ndarray, at: np.ndarray, closed: np.ndarray, conditions: int, box: np.ndarray, needed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes (inputs, needed) of nodes of a tree in preorder, after a look at whether all conditions are closed
    on every way to a leaf.
    """
    by_node: dict[int, list[int]] = {}
    for node, condition in closed.tolist():
        by_node.setdefault(node, []).append(condition)
    if len(box) * len(needed) > MOST_NODES:
        raise RejectedError("its boxes need too much memory")
    place = {int(node): i for i, node in enumerate(needed)}
    low, high = np.empty((len(box), len(needed))), np.empty((len(box), len(needed)))
    stack = [(box[:, 0], box[:, 1], frozenset(range(conditions)))]
    for i, (split, value) in enumerate(zip(axis.tolist(), at.tolist(), strict=True)):
        if not stack:
            raise RejectedError("its tree goes on behind its end")
        below, above, open_ = stack.pop()
        if i in place:
            low[:, place[i]], high[:, place[i]] = below, above
        left = open_ - set(by_node.get(i, ()))
        if split == -1:
            if left:
                raise RejectedError(f"box {i} leaves condition {min(left)} open")
            continue
        if not 0 <= split < len(box) or not below[split] <= value <= above[split]:
            raise RejectedError(f"box {i} is not split inside of itself")
        first, second = above.copy(), below.copy()
        first[split] = second[split] = value
        stack += [(second, above, left), (below, first, left)]
    if stack:
        raise RejectedError("its tree has no end")
    return low, high
