"""Packages as pip leaves them: a package, its metadata, and its entry points, on `sys.path`."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from fmsd.citations import papers
from fmsd.cli.declared_targets import declared_targets
from fmsd.cli.roots import datasets
from fmsd.plugins import plugins
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "plugin"


def install_example(place: Path) -> Path:
    """Installs the example by pip into a folder, without what it depends on."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    target = ["--no-deps", "--no-build-isolation", "--target", str(place), str(EXAMPLE)]
    subprocess.run([*pip, *target], check=True)
    return place


def write_package(
    place: Path,
    package: str,
    files: Mapping[str, str],
    entry_points: str | None = None,
    version: str = "1.5",
) -> Path:
    """Writes a package with its metadata into a folder.

    Args:
        files: texts by path inside the package.
        entry_points: by default the one of a plugin.
    """
    for name, text in ({"__init__.py": ""} | dict(files)).items():
        path = place / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    metadata = place / f"{package}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    )
    points = f"[fmsd.plugins]\n{package} = {package}\n" if entry_points is None else entry_points
    (metadata / "entry_points.txt").write_text(points)
    return place


@contextmanager
def on_path(place: Path) -> Iterator[None]:
    """Makes the packages of a folder importable, and their plugins known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        forget()
        try:
            yield
        finally:
            patch.undo()
            forget()


def forget() -> None:
    """Drops what was found of installed plugins."""
    plugins.cache_clear()
    declared_targets.cache_clear()
    datasets.cache_clear()
    papers.cache_clear()
