"""From the options of a command to the network and the question asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mipverify.cli.options import parse_targets
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.specification import Specification


@dataclass(frozen=True)
class Question:
    """What the user asks: a property file, or the robustness of one image. `about` is what a record should keep."""

    specification: Specification
    about: dict[str, Any]


@dataclass(frozen=True)
class QuestionOptions:
    """The options that state a question, as the user typed them."""

    property: str | None
    data: str | None
    index: int | None
    eps: str | None
    norm: str
    label: int | None
    targets: str | None

    def stated(self) -> bool:
        """Whether a question is asked at all."""
        return self.property is not None or self.data is not None

    def check(self) -> None:
        """Refuse combinations that state no question, or two."""
        of_data = {"--index": self.index, "--eps": self.eps, "--label": self.label, "--targets": self.targets}
        if self.property is not None:
            given = [name for name, value in {"--data": self.data, **of_data}.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} cannot be combined with the property file {self.property}")
        elif self.data is None:
            given = [name for name, value in of_data.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} needs --data FILE")
        else:
            missing = [name for name in ("--index", "--eps") if of_data[name] is None]
            if missing:
                raise InputError(f"--data needs {' and '.join(missing)} too")
        parse_targets(self.targets)

    def build(self, network: Network) -> Question:
        """Read the property or the data and fit it to the network. Raises InputError where they disagree."""
        if self.property is not None:
            return self._from_property(self.property, network)
        assert self.data is not None
        assert self.index is not None
        assert self.eps is not None
        return self._from_data(self.data, self.index, self.eps, network)

    def _from_property(self, path: str, network: Network) -> Question:
        from mipverify.specification import load_vnnlib

        specification = load_vnnlib(path)
        for case in specification.cases:
            inputs = len(case.box.lower)
            outputs = {condition.output_rows.shape[1] for condition in case.conditions}
            if inputs != network.input_size or outputs - {network.output_size}:
                raise InputError(
                    f"{path}: the property has {inputs} inputs and {max(outputs, default=0)} outputs, but the network "
                    f"{network.path} has {network.input_size} and {network.output_size}"
                )
        return Question(specification, {"path": path, "sha256": specification.sha256})

    def _from_data(self, path: str, index: int, eps: str, network: Network) -> Question:
        from mipverify.specification import load_dataset, robustness

        dataset = load_dataset(path)
        count = len(dataset.images)
        if not 0 <= index < count:
            raise InputError(f"--index {index}: {path} has {count} images, 0 to {count - 1}")
        image = dataset.images[index]
        size = math.prod(image.shape)
        if size != network.input_size:
            raise InputError(
                f"{path}: an image has {size} values, but the network {network.path} takes {network.input_size}"
            )
        label = int(dataset.labels[index]) if self.label is None else self.label
        targets = parse_targets(self.targets)
        specification = robustness(
            image.reshape(-1), label, eps, num_classes=network.output_size, norm=self.norm, targets=targets
        )
        about = {
            "path": path,
            "sha256": dataset.sha256,
            "index": index,
            "label": label,
            "eps": eps,
            "norm": self.norm,
            "targets": None if targets is None else list(targets),
        }
        return Question(specification, about)
