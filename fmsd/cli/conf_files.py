"""The folder of the packaged configuration files."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent

CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""Inside an installed package, beside the package in a checkout."""
