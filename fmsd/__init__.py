"""fmsd: a research framework for parameter-efficient deepfake detectors."""

import sys


def check_python(version):
    """Refuses a Python that is too old; this file is one that old ones understand.

    Raises:
        ImportError: it is older than 3.11.
    """
    if tuple(version[:2]) < (3, 11):
        found = "%d.%d" % tuple(version[:2])  # noqa: UP031  older ones know no f-strings
        raise ImportError("fmsd needs Python 3.11 or later; this is Python " + found + ".")


check_python(sys.version_info)

from fmsd.torchvision_operators import declare  # noqa: E402  older ones cannot read it

declare()
