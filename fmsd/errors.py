"""Errors of the user's input: a message that names the thing, and a remedy."""

from collections.abc import Iterator


class InputError(Exception):
    """Input that cannot be used.

    Args:
        message: what is wrong, naming the thing; without a full stop.
        remedy: what to do about it, as a clause that begins in lower case; without a full stop.
            Empty only where another library passes on a message that ends with its remedy, as
            torch's loader processes do.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return sentence(self.message, self.remedy)


class BusyError(InputError):
    """Another process is at work on the same run or folder."""


def sentence(message: str, remedy: str = "") -> str:
    """Message and remedy as one sentence."""
    return f"{message}; {remedy}." if remedy else message.strip().rstrip(".") + "."


def reason(error: Exception) -> str:
    """The first line of an error's text, or the name of its class if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def error_chain(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """Yields an error and its causes, each once.

    Args:
        suppressed: also those that `raise ... from None` hides.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__ and not suppressed
        current = current.__cause__ or (None if hidden else current.__context__)
