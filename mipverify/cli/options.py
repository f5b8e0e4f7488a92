"""The options that several commands share."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated

from mipverify.cli.declare import argument, option
from mipverify.errors import InputError
from mipverify.solvers.registry import describe, require_choice

if TYPE_CHECKING:
    from mipverify.engine.threats.threat import Threat as Threatened
    from mipverify.specification.preprocessing import Preprocessing

Network = Annotated[str, argument(metavar="NETWORK", help="ONNX file (.onnx or .onnx.gz).", show_default=False)]
Property = Annotated[
    str | None, argument(metavar="PROPERTY", help="VNN-LIB file (.vnnlib or .vnnlib.gz).", show_default=False)
]

Data = Annotated[
    str | None,
    option(metavar="FILE", help="Images and labels: .npz, IDX or CSV with the label first."),
]
Index = Annotated[int | None, option(metavar="I", help="Which image of the data, from 0.")]
Eps = Annotated[str | None, option(metavar="E", help="Radius of the perturbation, read exactly: 0.1 or 8/255 or 1e-3.")]
Threat = Annotated[
    str | None,
    option(
        metavar="NAME:VALUE,...",
        help="Another threat than a ball: patch:3, mask:background, mask:FILE, rotation:5, translation:1, scaling:0.1, "
        "brightness:0.1, contrast:0.1, blur:3, mixture:12.",
    ),
]
Norm = Annotated[str, option(metavar="NORM", help="Norm of the perturbation.")]
Domain = Annotated[str, option(metavar="LOW,HIGH", help="Legal values of a pixel, or `none`.")]
Scale = Annotated[
    str | None,
    option(metavar="S", help="Stored values are multiplied by this. [default: 1/255 for uint8 pixels, else 1]"),
]
Mean = Annotated[
    str | None,
    option(metavar="M,...", help="The network takes (pixel - mean) / std: one number, or one for each channel."),
]
Std = Annotated[str | None, option(metavar="S,...", help="See --mean; radius and domain are those of pixels.")]
Layout = Annotated[str | None, option(metavar="nchw|nhwc", help="How the data holds images, where shapes do not tell.")]
Label = Annotated[int | None, option(metavar="L", help="Right class, if not the label in the data.")]
Targets = Annotated[str | None, option(metavar="T,...", help="Only these wrong classes count, e.g. 3,5.")]

Timeout = Annotated[float, option(metavar="SECONDS", help="Time limit for each question.")]
Workers = Annotated[int, option(metavar="N", help="Processes to use.")]
Solver = Annotated[str, option(metavar="NAME", help=f"What finishes if bounds do not. {describe()}.")]
Arithmetic = Annotated[
    str,
    option(
        metavar="NAME",
        help="What `holds` is about: real, the exact function, or float32, every evaluation in any order of summation.",
    ),
]
Seed = Annotated[int, option(metavar="N", help="Seed of the random choices.")]
Memory = Annotated[
    str | None, option(metavar="SIZE", help="Give up (unknown) beyond this much memory, e.g. 800M or 4G.")
]
Json = Annotated[bool, option("--json", help="One JSON object on stdout, all else on stderr.")]
Quiet = Annotated[bool, option("--quiet", "-q", help="Print only the verdict.")]
Verbose = Annotated[bool, option("--verbose", "-v", help="Print statistics, and tracebacks of failures.")]


def check_limits(timeout: float, workers: int, seed: int = 0) -> None:
    """Refuse a time limit, a number of workers or a seed that makes no sense."""
    if not math.isfinite(timeout) or timeout <= 0:
        raise InputError(f"--timeout must be a positive number of seconds, not {timeout:g}")
    if workers < 1:
        raise InputError(f"--workers must be at least 1, not {workers}")
    if seed < 0:
        raise InputError(f"--seed must be at least 0, not {seed}")


def check_arithmetic(name: str) -> None:
    """Refuse an arithmetic that does not exist, before any work."""
    if name not in ("real", "float32"):
        raise InputError(f"--arithmetic must be real or float32, not {name!r}")


def check_solver(name: str) -> None:
    """Refuse a solver that does not exist or cannot be used here, before any work."""
    require_choice(name, "--solver")


def parse_memory(text: str | None) -> int | None:
    """Bytes meant by `text`, such as 800M, 4G or 4GiB; M and G are powers of 1024."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    size = float(match[1]) * 1024 ** " kmgt".index(match[2] or " ") if match else 0.0
    if not 1 <= size < math.inf:
        raise InputError(f"--memory must be a size such as 800M or 4G, not {text!r}")
    return int(size)


def parse_targets(text: str | None) -> tuple[int, ...] | None:
    """Class numbers from a list such as 3,5."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--targets must be class numbers separated by commas, such as 3,5, not {text!r}") from None


def parse_threat(text: str | None) -> Threatened | None:
    """What an option --threat means."""
    if text is None:
        return None
    from mipverify.engine.threats.parse import parse_threat as parse

    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"--{error}" if str(error).startswith("threat") else f"--threat: {error}") from None


def check_provable(threat: Threatened | None) -> None:
    """Raise InputError where no proof can be written of a threat."""
    if threat is not None and not threat.provable:
        raise InputError(f"--proof cannot be combined with --threat {threat.text}: no proofs can be written of it")


def check_radius(threat: Threatened | None, eps: str | None) -> None:
    """Refuse a threat without the radius that it needs, or with one that it has not."""
    if threat is not None and threat.radius == "needed" and eps is None:
        raise InputError(f"--threat {threat.text} needs --eps too")
    if threat is not None and threat.radius == "none" and eps is not None:
        raise InputError(f"--threat {threat.text} says itself how far it goes: it takes no --eps")


def parse_positive(option: str, text: str | None) -> float | None:
    """The float nearest to a number such as 0.1 or 8/255, which must be positive."""
    if text is None:
        return None
    from mipverify.specification.exact import exact_number, nearest_float

    value = nearest_float(exact_number(text, option))
    if not 0 < value < math.inf:
        raise InputError(f"{option} must be a positive number, not {text!r}")
    return value


def parse_domain(text: str) -> tuple[str, str] | None:
    """The numbers in a pair such as 0,1 or 0,1/2, or None for `none`."""
    if text == "none":
        return None
    low, comma, high = text.partition(",")
    if not comma:
        raise InputError(f"--domain must be two numbers such as 0,1, or none, not {text!r}")
    return low.strip(), high.strip()


def parse_preprocessing(
    domain: str, scale: str | None, mean: str | None, std: str | None, layout: str | None
) -> Preprocessing:
    """What lies between the stored values and the network, from the options of that name."""
    from mipverify.specification.preprocessing import Preprocessing

    try:
        return Preprocessing.of(
            domain=parse_domain(domain),
            scale=scale,
            mean=0 if mean is None else [part.strip() for part in mean.split(",")],
            std=1 if std is None else [part.strip() for part in std.split(",")],
            layout=None if layout is None else layout.lower(),
        )
    except InputError as error:
        named = re.match(r"(domain|scale|mean|std|layout)\b", str(error))
        raise InputError(f"--{error}" if named else str(error)) from None
