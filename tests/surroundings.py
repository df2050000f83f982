"""Hides from the tests what a developer has set and installed on the machine.

Without this, tests fail where the root of a dataset is set (`FMSD_FFPP=...`), or where a plugin is
installed, as the README of the example asks for. Imported before fmsd.
"""

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

KEPT = (
    "FMSD_TEST_CACHE",
    "FMSD_TEST_DATA",
    "FMSD_TEST_DIST",
    "FMSD_TEST_SIGNALS",
    "FMSD_FUZZ",
    "FMSD_FUZZ_SEED",
)
"""The variables that are for the tests."""

GROUPS = ("fmsd.plugins", "fmsd.layers")
"""The entry points by which a package declares itself to fmsd."""

PLACE = tempfile.TemporaryDirectory(prefix="fmsd-test-", ignore_cleanup_errors=True)
"""The folder of the tests' cache, file of roots and hidden plugins; removed at the end."""

HIDDEN = Path(PLACE.name, "hidden")
"""Comes before the installed packages in the search path, see `hide_plugins`."""


def hide_variables() -> None:
    """Unsets the variables of fmsd, and sets those for its cache and its file of roots.

    The processes of a session share one cache, so that one of them draws the embedded dataset for
    all: the first process sets FMSD_TEST_CACHE, unless the developer has.
    """
    for name in [name for name in os.environ if name.startswith("FMSD_") and name not in KEPT]:
        del os.environ[name]
    roots = Path(PLACE.name, "roots.yaml")
    roots.touch()
    os.environ["FMSD_ROOTS"] = str(roots)
    cache = Path(os.environ.get("FMSD_TEST_CACHE") or Path(PLACE.name, "cache")).absolute()
    os.environ["FMSD_TEST_CACHE"] = os.environ["FMSD_CACHE"] = str(cache)


def hide_plugins() -> None:
    """Hides the plugins that are installed, in this process and in those with `python_path`.

    Python reads the entry points of a distribution where its name comes first in the search path:
    here from metadata without any. A plugin that a test puts before that is found.
    """
    points = (point for group in GROUPS for point in importlib.metadata.entry_points(group=group))
    for name, version in {(point.dist.name, point.dist.version) for point in points if point.dist}:
        metadata = HIDDEN / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    HIDDEN.mkdir(exist_ok=True)
    sys.path.insert(0, str(HIDDEN))


def python_path(*places: Path) -> str:
    """PYTHONPATH of other processes: this checkout, and none of the installed plugins.

    Args:
        places: folders with the packages and plugins of the test.
    """
    checkout = Path(__file__).parents[1]
    return os.pathsep.join(map(str, (checkout, *places, HIDDEN)))
