"""Provenance of a result: time, command, package versions, git revision and machine."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmsd.plugins import plugin_versions
from fmsd.redaction import redact_words

PACKAGE = Path(__file__).parents[1]
"""The folder of this package."""

GIT_REDIRECTIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
"""Environment variables that point git at another repository; git itself sets them for hooks."""

PACKAGES = (
    "fmsd",
    "torch",
    "lightning",
    "timm",
    "torchmetrics",
    "albumentations",
    "av",
    "hydra-core",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "polars",
)
"""Packages whose versions are recorded, beside those of plugins."""


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """The entries of `run.json` on the time, the command, versions, revision and machine."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "command": redact_words(command),
        "versions": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()}
        | plugin_versions(),
        "revision": git_revision(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def git_revision(package: Path = PACKAGE) -> str | None:
    """The git revision of a package's source; `+changes` if the source or `conf/` is modified.

    None without git, and for a package that is not in a checkout of its own: a repository around an
    installed package belongs to another project.
    """
    checkout = package.resolve().parent
    environment = {
        name: value for name, value in os.environ.items() if name not in GIT_REDIRECTIONS
    }
    # Git refuses a checkout of another user, as in a container. The code in this very folder is
    # running already.
    git = ["git", "--no-optional-locks", "-c", f"safe.directory={checkout}", "-C", str(checkout)]

    def ask(*arguments: str) -> str:
        return subprocess.run(
            [*git, *arguments],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a path may be any bytes
            check=True,
        ).stdout.removesuffix("\n")

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != checkout:
            return None
        ask("ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        head = ask("rev-parse", "HEAD")
        changes = ask("status", "--porcelain", "--", package.name, "conf")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changes else "")


def _version(package: str) -> str | None:
    """The version of an installed package; for fmsd, of the source that is running.

    Another copy of fmsd may be installed beside the checkout that is running.
    """
    if package == "fmsd" and (version := _source_version(PACKAGE)) is not None:
        return version
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source_version(package: Path) -> str | None:
    """The version in the `pyproject.toml` beside the package; None if there is no such file."""
    try:
        text = (package.parent / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text).get("project", {})
    except (OSError, ValueError):
        return None
    return project.get("version") if project.get("name") == "fmsd" else None
