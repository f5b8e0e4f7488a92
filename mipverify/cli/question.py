"""From the options of a command to the network and the question asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mipverify.cli.options import check_radius, parse_preprocessing, parse_targets, parse_threat
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.engine.threats.sample import Sample
    from mipverify.engine.threats.threat import Threat
    from mipverify.network import Network
    from mipverify.specification import Specification
    from mipverify.specification.preprocessing import Preprocessing


@dataclass(frozen=True)
class Question:
    """What the user asks: a property file, or the robustness of one image. `about` is what a record should keep.

    preprocessing: what was done to the image, in words; empty for a property file. threat: with its sample, where it is
    about another threat than a ball; the specification is then that of the image as it is.
    """

    specification: Specification
    about: dict[str, Any]
    preprocessing: str = ""
    threat: tuple[Threat, Sample] | None = None


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
    domain: str = "0,1"
    scale: str | None = None
    mean: str | None = None
    std: str | None = None
    layout: str | None = None
    threat: str | None = None

    def stated(self) -> bool:
        """Whether a question is asked at all."""
        return self.property is not None or self.data is not None

    def check(self) -> None:
        """Refuse combinations that state no question, or two."""
        of_data = {
            "--index": self.index,
            "--eps": self.eps,
            "--label": self.label,
            "--targets": self.targets,
            "--scale": self.scale,
            "--mean": self.mean,
            "--std": self.std,
            "--layout": self.layout,
            "--threat": self.threat,
        }
        if self.property is not None:
            given = [name for name, value in {"--data": self.data, **of_data}.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} cannot be combined with the property file {self.property}")
        elif self.data is None:
            given = [name for name, value in of_data.items() if value is not None]
            if given:
                raise InputError(f"{given[0]} needs --data FILE")
        else:
            needed = ("--index",) if self.threat is not None else ("--index", "--eps")
            missing = [name for name in needed if of_data[name] is None]
            if missing:
                raise InputError(f"--data needs {' and '.join(missing)} too")
            check_radius(parse_threat(self.threat), self.eps)
        parse_targets(self.targets)
        if self.data is not None:
            self.preprocessing()

    def preprocessing(self) -> Preprocessing:
        """What lies between the data and the network."""
        return parse_preprocessing(self.domain, self.scale, self.mean, self.std, self.layout)

    def read(self, networks: Mapping[str, str]) -> tuple[Network, Question]:
        """Read the networks and the property or the data. Raises InputError where they do not fit each other.

        networks: files by the names of the networks that the property declares, or one under an empty name.
        """
        from mipverify.engine.query import load_query
        from mipverify.network import load

        if self.property is not None:
            network, specification = load_query(self.property, networks)
            return network, Question(specification, {"path": self.property, "sha256": specification.sha256})
        if len(networks) != 1:
            raise InputError(f"an image is asked about for one network, not {len(networks)}")
        network = load(next(iter(networks.values())))
        return network, self.build(network)

    def build(self, network: Network) -> Question:
        """Read the property or the data and fit it to the network. Raises InputError where they disagree."""
        if self.property is not None:
            return _from_property(self.property, network)
        assert self.data is not None
        assert self.index is not None
        return self._from_data(self.data, self.index, network)

    def _from_data(self, path: str, index: int, network: Network) -> Question:
        from mipverify.specification import load_dataset, robustness
        from mipverify.specification.robustness import OutsideError

        given = self.preprocessing()
        dataset = load_dataset(path, given).fit_to(network.input_shape)
        image = dataset.image(index)
        label = self.label
        if label is None:
            label = dataset.label(index)
            if label >= network.output_size:
                raise InputError(f"{path}: image {index} has label {label}, the network {network.output_size} classes")
        threat = parse_threat(self.threat)
        try:
            specification = robustness(
                image,
                label,
                self.eps if threat is None else 0,
                num_classes=network.output_size,
                norm=self.norm if threat is None else "linf",
                domain=given.domain,
                targets=parse_targets(self.targets),
                mean=dataset.mean,
                std=dataset.std,
            )
        except OutsideError as error:
            raise InputError(f"{path}: image {index}: {error}") from None
        about = {
            "path": path,
            "sha256": dataset.sha256,
            "index": index,
            "label": label,
            "eps": self.eps,
            "norm": self.norm,
            "targets": parse_targets(self.targets),
            **({} if threat is None else {"threat": threat.text}),
            **dataset.record(),
        }
        if threat is None:
            return Question(specification, about, dataset.described())
        from mipverify.engine.threats.sample import Sample

        sample = Sample.of(dataset, index, label, self.eps, self.norm, parse_targets(self.targets))
        return Question(specification, about, dataset.described(), (threat, sample))


def _from_property(path: str, network: Network) -> Question:
    from mipverify.specification import load_vnnlib

    specification = load_vnnlib(path)
    specification.require_network(network)
    return Question(specification, {"path": path, "sha256": specification.sha256})
