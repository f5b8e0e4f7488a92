"""Threats as they are written: `patch:3`, `rotation:5,translation:1`, `mask:background`, …"""

from __future__ import annotations

from mipverify.engine.threats.lights import blurring, light, mixing
from mipverify.engine.threats.mask import mask
from mipverify.engine.threats.patch import patch
from mipverify.engine.threats.threat import Threat
from mipverify.engine.threats.transforming import transforming
from mipverify.errors import InputError

TOGETHER = {  # by name, the group whose members can be combined
    "rotation": "transforms",
    "translation": "transforms",
    "scaling": "transforms",
    "brightness": "light",
    "contrast": "light",
}
SINGLE = {"patch": patch, "mask": mask, "blur": blurring, "mixture": mixing}
NAMES = (*SINGLE, *TOGETHER)


def parse_threat(text: str) -> Threat:
    """The threat that a text means: NAME:VALUE, and more of them after commas where they can be combined.

    Raises InputError where it means none.
    """
    first = text.partition(":")[0].strip()
    if first in SINGLE:
        name, value = first, text.partition(":")[2].strip()
        if not value:
            raise InputError(f"threat {text!r}: {name} needs a value, such as {name}:{_example(name)}")
        return SINGLE[name](value)
    parts: dict[str, str] = {}
    for piece in text.split(","):
        name, _, value = (part.strip() for part in piece.partition(":"))
        if name not in NAMES:
            raise InputError(f"threat {text!r}: {name!r} is none of {', '.join(NAMES)}")
        if not value:
            raise InputError(f"threat {text!r}: {name} needs a value, such as {name}:{_example(name)}")
        if name in parts:
            raise InputError(f"threat {text!r}: {name} is given twice")
        parts[name] = value
    groups = {TOGETHER.get(name, name) for name in parts}
    if len(groups) > 1:
        raise InputError(f"threat {text!r}: {' and '.join(parts)} cannot be combined")
    return transforming(parts) if groups == {"transforms"} else light(parts)


def _example(name: str) -> str:
    examples = {"patch": "3", "mask": "background", "blur": "3", "mixture": "1", "rotation": "5", "translation": "1"}
    return examples.get(name, "0.1")
