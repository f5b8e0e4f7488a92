"""Networks in the weight formats of other tools, written as ONNX so that one importer and one replay serve all."""

from __future__ import annotations

from mipverify.network.formats.convert import Conversion, ConvertedLayer, convert

__all__ = ["Conversion", "ConvertedLayer", "convert"]
