"""What a command logs: fmsd's messages and the warnings of other libraries, without secrets."""

import logging
import sys
import warnings

from fmsd.redaction import RedactingFormatter, print_redacted_traceback


def configure_logging(lightning: bool) -> None:
    """Logs fmsd at INFO and other libraries at WARNING.

    Args:
        lightning: whether Lightning will be used.
    """
    if lightning:
        import fmsd.engine.trainer  # noqa: F401  Lightning sets log levels when it is imported
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.excepthook = print_redacted_traceback
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # it is refused
    logging.getLogger("fmsd").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
