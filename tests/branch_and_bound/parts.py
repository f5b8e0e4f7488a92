"""Parts of a box as searches make them, for tests of what becomes of these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mipverify.proof.bounds import Bounds
from mipverify.proof.boxes import BoxCases, Boxes, Settlement, part_bounds


def halved(cases: BoxCases, root: Bounds, axes: Sequence[int]) -> Boxes:
    """The whole box halved along one axis after the other, with nothing learned of it."""
    boxes = cases.root
    for axis in axes:
        every = np.arange(len(boxes))
        settled = Settlement(boxes, part_bounds(root, boxes, None)).close(every, np.full(len(every), axis))
        cases.settle(settled)
        assert settled.rest is not None
        boxes = settled.rest
    return boxes
