"""What a wheel installs."""

from __future__ import annotations

import zipfile

import pytest

from tests.cli.installed import FOLDERS, ROOT, build_wheel


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths of the files in a wheel."""
    return set(zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("source"))).namelist())


def test_one_importable_name(names: set[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"mipverify"}


def test_every_module_network_and_template_is_in_it(names: set[str]) -> None:
    expected = {
        f"{target}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected - names == set()
    assert {"mipverify/py.typed", "mipverify/models/zoo/mnist_100.npz"} <= expected
