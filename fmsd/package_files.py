"""Where the files that come with the package are."""

from pathlib import Path

PACKAGE = Path(__file__).parent

CONF = next(
    (folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()),
    PACKAGE / "conf",
)
"""The configuration files: inside an installed package, or beside the package in a checkout."""

EMBEDDED = "package:"
"""Prefix of a path that names a file inside this package, as in `package:demo_vit.safetensors`."""
