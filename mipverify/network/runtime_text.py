"""What ONNX Runtime says is wrong, in the words of one of our lines."""

from __future__ import annotations

import re

from mipverify.errors import one_line

LONGEST = 300  # characters of its message


def runtime_text(error: Exception) -> str:
    """The message of an error without codes, and places in ONNX Runtime's own source."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", one_line(error))
    return re.sub(r"\S*onnxruntime_src\S* (?:.*?\) )?", "", text)[:LONGEST]
