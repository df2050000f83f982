"""`python train.py ...` is `fmsd train ...`."""

import sys

from fmsd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
