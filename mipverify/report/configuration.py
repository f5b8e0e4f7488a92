"""The question that a run directory answers, and the samples that a command asks for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mipverify.errors import InputError
from mipverify.specification.exact import canonical, exact_number

THREAT = "threat"  # the setting that names what may be done to samples; left out for balls
ARITHMETIC = "arithmetic"  # the setting that says what `holds` is about; left out where it is the real-valued function


@dataclass(frozen=True)
class RunConfiguration:
    """What has to be the same for two results to belong into one directory.

    network, data: paths, which may change. The hashes are of what was read of them: `network_sha256` covers weights in
    other files, `labels_sha256` labels in another file. eps: the radius, or several with commas between.
    """

    network: str
    network_sha256: str
    data: str
    data_sha256: str
    labels_sha256: str
    eps: str
    norm: str
    settings: str = "{}"  # all else that states the question, as JSON with sorted keys and canonical values

    @property
    def radii(self) -> tuple[str, ...]:
        """The radius, or several of them, the smallest first."""
        return tuple(self.eps.split(","))

    @property
    def curve(self) -> bool:
        """Whether it is about several radii."""
        return len(self.radii) > 1

    @property
    def arithmetic(self) -> str:
        """What `holds` is about: `real` or `float32`."""
        return str(json.loads(self.settings).get(ARITHMETIC, "real"))

    @property
    def threat(self) -> str | None:
        """What may be done to samples, in the words of `--threat`; None for balls."""
        found = json.loads(self.settings).get(THREAT)
        return None if found is None else str(found)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What lies between stored values and inputs."""
        return {name: value for name, value in json.loads(self.settings).items() if name not in (ARITHMETIC, THREAT)}

    def differences(self, stored: RunConfiguration) -> list[str]:
        """What this question asks otherwise than `stored` does; file names may change, contents may not."""
        found = []
        if self.network_sha256 != stored.network_sha256:
            found.append(f"network ({stored.network} with SHA-256 {stored.network_sha256[:12]}…)")
        if (self.data_sha256, self.labels_sha256) != (stored.data_sha256, stored.labels_sha256):
            found.append(f"data ({stored.data} with SHA-256 {stored.data_sha256[:12]}…)")
        if self.eps != stored.eps:
            found.append(f"eps ({stored.eps})")
        if self.norm != stored.norm:
            found.append(f"norm ({stored.norm})")
        mine, theirs = ({**one.preprocessing, ARITHMETIC: one.arithmetic, THREAT: one.threat} for one in (self, stored))
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                found.append(f"{name} ({theirs.get(name)})")
        return found


def canonical_eps(text: str) -> str:
    """The radius as text without superfluous zeros: 0.10 and 1e-1 are the same question as 0.1, 16/510 as 8/255."""
    value = exact_number(text, "--eps")
    if value < 0:
        raise InputError(f"--eps must be a number that is not negative, not {text!r}")
    return canonical(value)


def canonical_radii(texts: Sequence[str]) -> tuple[str, ...]:
    """Several radii, each as such text, the smallest first."""
    radii = [canonical_eps(text) for text in texts]
    twice = [eps for eps, count in Counter(radii).items() if count > 1]
    if twice:
        raise InputError(f"--eps names the radius {twice[0]} twice")
    return tuple(sorted(radii, key=lambda eps: exact_number(eps, "--eps")))


def parse_samples(text: str | None, count: int) -> range:
    """The indices meant by `begin:end` (end excluded, either may be left out) among `count` samples."""
    if text is None:
        return range(count)
    match = re.fullmatch(r"(\d*):(\d*)", text.strip())
    if match is None:
        raise InputError(f"--samples must be BEGIN:END, such as 0:500, not {text!r}")
    begin = int(match[1] or 0)
    end = int(match[2]) if match[2] else count
    if end > count:
        raise InputError(f"--samples {text}: the data has {count} samples, 0 to {count - 1}")
    if begin >= end:
        raise InputError(f"--samples {text}: holds no sample")
    return range(begin, end)
