"""The little language of `--layers`: `conv1:stride=2 relu conv2:stride=2 relu flatten=chw fc1 relu logits`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mipverify.errors import InputError
from mipverify.network.formats.layers import Conv, Dense, Flatten, Layer, Normalize, Pool, Relu
from mipverify.network.formats.program import Add, Back, Keep, Step
from mipverify.network.formats.windows import Padding, Pair

Arrays = Mapping[str, np.ndarray]
WORDS = ("relu", "flatten", "maxpool", "avgpool", "normalize", "as", "from", "add")
_OPTIONS = {
    "relu": {"mask"},
    "flatten": set(),
    "maxpool": {"size", "stride", "pad", "relu"},
    "avgpool": {"size", "stride", "pad", "relu"},
    "normalize": {"mean", "std"},
    "as": set(),
    "from": set(),
    "add": {"relu"},
}


@dataclass(frozen=True)
class Word:
    """One word of the list, `name[=value][:option[=value],...]`."""

    text: str
    name: str
    value: str | None
    options: dict[str, str]

    def error(self, why: str) -> InputError:
        """What to raise where the word cannot be used."""
        return InputError(f"--layers {self.text}: {why}")


def parse(text: str, arrays: Arrays) -> tuple[Step, ...]:
    """The steps that `text` lists, with weights from `arrays` (`layer/weight`, `layer/bias`).

    Raises:
        InputError: a word is unknown, lacks something, or names a layer or an array that `arrays` does not hold.
    """
    steps: list[Step] = []
    counts: dict[str, int] = {}
    for word in map(_word, text.split()):
        counts[word.name] = counts.get(word.name, 0) + 1
        number = counts[word.name]
        steps.append(_step(word, f"{word.name}{number}" if word.name in WORDS else word.name, arrays))
        if word.name != "relu" and "relu" in word.options:
            counts["relu"] = counts.get("relu", 0) + 1
            steps.append(Relu(f"relu{counts['relu']}"))
    if not any(isinstance(step, Conv | Dense) for step in steps):
        raise InputError("--layers: names no layer with weights")
    return tuple(steps)


def dense_layer(name: str, arrays: Arrays) -> Dense:
    """The fully connected layer `name` of `arrays`, with its bias."""
    layer = _weighted(Word(name, name, None, {}), arrays)
    if not isinstance(layer, Dense):
        raise InputError(f"layer {name!r} is a convolution: say with --layers how the layers follow one another")
    return layer


def _word(text: str) -> Word:
    head, _, tail = text.partition(":")
    name, _, value = head.partition("=")
    options: dict[str, str] = {}
    for part in tail.split(",") if tail else []:
        key, equals, setting = part.partition("=")
        if not key or key in options or (equals and not setting):
            raise InputError(f"--layers {text}: cannot be read: write name:option=value,option=value")
        options[key] = setting
    if not name or ("=" in head and not value):
        raise InputError(f"--layers {text}: cannot be read: write name:option=value,option=value")
    return Word(text, name, value or None, options)


def _step(word: Word, label: str, arrays: Arrays) -> Step:
    if word.name not in WORDS:
        return _weighted(word, arrays)
    _only(word, _OPTIONS[word.name])
    match word.name:
        case "relu":
            _no_value(word)
            return Relu(label, _named(word, "mask", arrays) if "mask" in word.options else None)
        case "flatten":
            return Flatten(_order(word), label)
        case "maxpool" | "avgpool":
            return _pool(word, label)
        case "normalize":
            _no_value(word)
            return Normalize(_numbers(word, "mean", arrays), _numbers(word, "std", arrays), label)
        case "as":
            return Keep(_value(word))
        case "from":
            return Back(_value(word))
        case _:
            return Add(_value(word))


def _weighted(word: Word, arrays: Arrays) -> Layer:
    name = word.name
    _no_value(word)
    weight = _array(word, f"{name}/{word.options.get('weight', 'weight')}", arrays)
    weight = weight[..., None] if weight.ndim == 3 else weight  # MATLAB drops a last axis of length 1
    if weight.ndim not in (2, 4):
        raise word.error(f"weights of shape {list(weight.shape)}: (in, out) or (height, width, in, out) are needed")
    outputs = weight.shape[-1]
    if word.options.get("bias") == "none":
        bias = np.zeros(outputs)
    else:
        bias = _array(word, f"{name}/{word.options.get('bias', 'bias')}", arrays, "; without one, write bias=none")
        if bias.size != outputs:
            raise word.error(
                f"the bias has {bias.size} entries, the weights {list(weight.shape)} have {outputs} outputs"
            )
    if weight.ndim == 2:
        _only(word, {"relu", "weight", "bias"})
        return Dense(name, weight, bias.reshape(-1))
    _only(word, {"relu", "weight", "bias", "stride", "pad"})
    return Conv(name, weight, bias.reshape(-1), _pair(word, "stride", (1, 1)), _padding(word, "same"))


def _pool(word: Word, label: str) -> Pool:
    kind: Literal["max", "average"] = "max" if word.name == "maxpool" else "average"
    if word.value is not None and "size" in word.options:
        raise word.error("the size stands there twice")
    if word.value is None and "size" not in word.options:
        raise word.error(f"needs the size of its windows: {word.name}=2")
    given = Word(word.text, word.name, None, {"size": word.value or "", **word.options})
    size = _pair(given, "size", (1, 1))
    return Pool(label, kind, size, _pair(word, "stride", size), _padding(word, "cut"))


def _only(word: Word, allowed: set[str]) -> None:
    for option, setting in word.options.items():
        if option not in allowed:
            raise word.error(
                f"has no option {option!r}" + (f": it takes {', '.join(sorted(allowed))}" if allowed else "")
            )
        if (setting == "") != (option == "relu"):
            raise word.error("relu takes no value" if option == "relu" else f"{option} needs a value")


def _value(word: Word) -> str:
    if word.value is None:
        raise word.error(f"needs a name: {word.name}=NAME")
    return word.value


def _no_value(word: Word) -> None:
    if word.value is not None:
        raise word.error(f"takes no value: write {word.name}:option={word.value}")


def _order(word: Word) -> Literal["hwc", "chw"]:
    if word.value in (None, "hwc"):
        return "hwc"
    if word.value == "chw":
        return "chw"
    raise word.error("the order is hwc (TensorFlow) or chw (PyTorch)")


def _pair(word: Word, option: str, default: Pair) -> Pair:
    """One whole number for both axes, or two separated by a slash, vertical first."""
    if option not in word.options:
        return default
    match = re.fullmatch(r"(\d{1,4})(?:/(\d{1,4}))?", word.options[option])
    pair = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(pair) < 1:
        raise word.error(f"{option} must be a whole number from 1, or two such as 2/1, not {word.options[option]!r}")
    return pair


def _padding(word: Word, default: str) -> Padding:
    text = word.options.get("pad", default)
    if text in ("same", "valid", "cut"):
        return text
    parts = text.split("/")
    if len(parts) not in (1, 2, 4) or not all(re.fullmatch(r"\d{1,4}", part) for part in parts):
        raise word.error(f"pad must be same, valid, cut, or 1, 2 or 4 numbers (top/bottom/left/right), not {text!r}")
    numbers = [int(part) for part in parts]
    if word.name in ("maxpool", "avgpool"):
        raise word.error("pooling takes pad=same, valid or cut")
    top, bottom, left, right = numbers * 4 if len(numbers) == 1 else numbers
    return ((top, bottom), (left, right))


def _numbers(word: Word, option: str, arrays: Arrays) -> np.ndarray:
    """Numbers written down (0.5 or 0.5/0.4/0.3), or the array that is named."""
    text = word.options.get(option)
    if text is None:
        raise word.error(f"needs {option}: numbers such as 0.5/0.4/0.3, or the name of an array in the file")
    try:
        values = np.array([float(part) for part in text.split("/")])
    except ValueError:
        return _named(word, option, arrays).reshape(-1)
    if not np.isfinite(values).all():
        raise word.error(f"{option} holds NaN or infinity")
    return values


def _named(word: Word, option: str, arrays: Arrays) -> np.ndarray:
    return _array(word, word.options[option], arrays)


def _array(word: Word, key: str, arrays: Arrays, advice: str = "") -> np.ndarray:
    if key in arrays:
        return arrays[key]
    known = sorted({name.rpartition("/")[0] for name in arrays if "/" in name})
    if word.name not in WORDS and word.name not in known:
        raise word.error(f"no layer {word.name!r} in the file; it holds {', '.join(known) or 'none'}")
    raise word.error(f"the file holds no {key!r}{advice}")
