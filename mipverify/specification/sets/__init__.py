"""Input sets: one interface, one file for each kind."""

from __future__ import annotations

from mipverify.specification.sets.ball import Ball, BallInBox
from mipverify.specification.sets.box import Box, EmptyBoxError
from mipverify.specification.sets.constrained import Constrained
from mipverify.specification.sets.image import Image
from mipverify.specification.sets.input_set import InputSet, Proposal
from mipverify.specification.sets.product import Product

__all__ = ["Ball", "BallInBox", "Box", "Constrained", "EmptyBoxError", "Image", "InputSet", "Product", "Proposal"]
