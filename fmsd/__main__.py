"""`python -m fmsd VERB ...` is `fmsd VERB ...`."""

import sys
from pathlib import Path

# Python would import from the working directory, which may be the downloaded folder of a run;
# `fmsd` does not. Only a checkout that is not installed is found in this way.
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from fmsd.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
