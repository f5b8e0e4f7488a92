"""The sites that the facts of a proof name."""

from __future__ import annotations


class Sites:
    """The sites that facts name, numbered as they come."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, int], int] = {}

    def number(self, site: tuple[str, int] | None) -> int:
        """The number of a site, from now on."""
        assert site is not None
        return self.names.setdefault(site, len(self.names))
