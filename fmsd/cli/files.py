"""Where the configuration lies."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent

CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The configuration: inside an installed package, beside it in a checkout."""
