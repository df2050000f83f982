"""fmsd: a research framework for parameter-efficient deepfake detectors.

`fmsd.load` loads a detector; everything else is imported from the module that defines it.
"""

import sys


def check_python(version):
    """Refuses a Python older than 3.11; old versions can parse this file.

    Raises:
        ImportError: the version is older than 3.11.
    """
    if tuple(version[:2]) < (3, 11):
        found = "%d.%d" % tuple(version[:2])  # noqa: UP031  old versions know no f-strings
        raise ImportError("fmsd needs Python 3.11 or later; this is Python " + found + ".")


check_python(sys.version_info)

from fmsd.torchvision_operators import declare_before_import  # noqa: E402  needs Python 3.11

declare_before_import()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fmsd.api import load

__all__ = ["load"]


def __getattr__(name):
    """Imports `fmsd.load` when it is used, so that `import fmsd` stays cheap."""
    if name == "load":
        from fmsd.api import load  # noqa: PLC0415

        return load
    raise AttributeError("module 'fmsd' has no attribute " + repr(name))
