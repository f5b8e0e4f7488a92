"""Results as one line for a prompt, and as a small table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def number(value: float | None) -> str:
    """A bound in few digits."""
    return "none" if value is None else f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration in few digits."""
    return f"{value:.3g} s"


def vector(values: np.ndarray) -> str:
    """Some numbers: all of a few, else how many there are."""
    flat = np.asarray(values).reshape(-1)
    return f"[{', '.join(f'{v:.4g}' for v in flat)}]" if len(flat) <= 10 else f"{len(flat)} values"


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """A table of two columns; what is None or empty is left out."""
    from html import escape  # its table of all entities is large

    lines = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in (None, "", (), [])
    )
    return f"<table><thead><tr><th colspan='2' style='text-align:left'>{escape(title)}</th></tr></thead>{lines}</table>"
