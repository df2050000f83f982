"""The entry of every command: it handles signals before it imports the rest."""

import atexit
from collections.abc import Sequence

from fmsd.signals import finish, handle_signals, ignore_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line in a process of its own, see `fmsd.cli.main.main`."""
    handle_signals()
    atexit.register(ignore_signals)  # registered first, so called last
    from fmsd.cli.main import main as run

    return finish(run(arguments))
