"""`python -m fmsd VERB ...` is `fmsd VERB ...`."""

import sys

from fmsd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
