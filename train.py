"""`python train.py ...` is `fmsd train ...`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  what is imported below cannot be read by older ones
    version = "%d.%d" % sys.version_info[:2]  # noqa: UP031  older ones know no f-strings
    sys.exit("fmsd: Python 3.11 or later is needed; this is Python " + version + ".")

from fmsd.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
