"""Passwords, tokens and keys, which no file, log, service or error message gets to hold.

They are known by their place (`user:password@host`, the value of a key that ends in `token`), by
their shape (`ghp_...`), or as the value of an environment variable with such a name.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

REDACTED = "***"
"""What stands in place of a password, token or key."""

SHORTEST = 8
"""Characters that the value of an environment variable must have to be looked for in a text."""

_NAME = (
    r"(?:password|passwd|passphrase|token|secret|credentials?|api[_-]?key|access[_-]?key"
    r"|secret[_-]?key|private[_-]?key)"
)
"""The end of a name whose value is a secret."""

_CREDENTIAL = re.compile(rf".*{_NAME}", re.IGNORECASE | re.DOTALL)

_PLAIN = re.compile(
    r"null|none|true|false|[-+]?\d{0,5}(?:\.\d*)?(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII
)
"""Values that are no secret under any name."""

_SIGN = r"[\"']?(?:=|:\s+|:(?=[\"']))"

_SHAPES = (
    # the default of a lookup: password=${oc.env:NAME,DEFAULT}
    (
        re.compile(rf"({_NAME}{_SIGN}[\"']?\$\{{oc\.env:[^,}}]*,)[^}}]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # ://user:password@host; the second alternative is for a password with a slash
    (
        re.compile(
            r"(://(?:[^\s/?#'\"@:$]|\$\{[^}]*\})*:)(?!\$\{)"
            r"(?:[^\s/?#'\"]+|(?!\d{1,5}[/?#])[^\s'\"@]+)(?=@)"
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(://)[^\s/?#'\"@:]{20,}(?=@)"), rf"\1{REDACTED}"),
    (
        re.compile(r"([?&](?:sig|key|auth|[\w-]*signature)=)(?!\$\{)[^\s&#'\",]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(
            r"(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|bearer\s+)[\w.~+/=-]{8,}",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    # Hugging Face, GitHub, GitLab, AWS, OpenAI and others, Slack, Weights & Biases, JWT
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
            r"|glpat-[\w-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[a-z]-[\w-]{10,}|wandb_v\d_\w{20,}"
            r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{20,}"
            r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        REDACTED,
    ),
    (
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL),
        rf"\1{REDACTED}",
    ),
)
"""Texts that hold a secret, by its place or shape, and what they become."""

_ASSIGNED = re.compile(
    rf"({_NAME}{_SIGN})(?!\$\{{)(\"[^\"]*\"|'[^']*'|[^\s,;&#\"'}}\])]+)", re.IGNORECASE
)
"""A name that ends like that of a secret, and its value."""

_LOOKUP = re.compile(r"([\"']?(?:\$\{[\w.]+:[\"']?)+\w+)(,[^}]*)?([}\"']+)")
"""A value that is looked up, in three parts: the variable, its default, and what closes it."""

_looked_up: set[str] = set()


def redact(text: str) -> str:
    """A text with `***` in place of every password, token and key."""
    for value in _environment_secrets():
        text = text.replace(value, REDACTED)
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return _ASSIGNED.sub(_redact_assigned, text)


def _redact_assigned(match: re.Match[str]) -> str:
    value = match[2]
    if _PLAIN.fullmatch(value.strip("\"'")):
        return match[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{match[1]}{mark}{REDACTED}{mark}"


def redact_message(text: str) -> str:
    """The text of an error or a log without secrets and the values that `note_lookup` was told."""
    for value in sorted(_looked_up, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return redact(text)


class RedactingFormatter(logging.Formatter):
    """Formats what is logged, without passwords and tokens."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, with the traceback of its error."""
        return redact_message(super().format(record))


def print_redacted_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Prints an error that nothing has caught, without passwords and tokens."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(redact_message(text))


def note_lookup(name: str) -> None:
    """Lets `redact_message` replace the value of an environment variable that a setting looks up.

    Args:
        name: of the variable.
    """
    if _is_secret(value := os.environ.get(name, "")):
        _looked_up.add(value)


def redact_word(word: str) -> str:
    """A word of a command line, as `key=value`, without secrets."""
    key, sign, value = word.partition("=")
    named = sign and re.fullmatch(r"[\w.+~/@-]+", key) and is_credential(key)
    return f"{key}={redact_setting(key, value)}" if named else redact(word)


def redact_words(command: Sequence[str]) -> list[str]:
    """The words of a command line without secrets."""
    return [redact_word(word) for word in command]


def redact_setting(key: str, value: Any) -> Any:
    """The value of a setting without secrets: a text, or a mapping or list of settings.

    Args:
        key: the key of the setting, which may be dotted.
    """
    if isinstance(value, dict):
        below = key if is_credential(key) else None
        return {name: redact_setting(below or str(name), part) for name, part in value.items()}
    if isinstance(value, list):
        return [redact_setting(key, part) for part in value]
    if not isinstance(value, str | int) or isinstance(value, bool):
        return value
    if is_credential(key) and not _PLAIN.fullmatch(str(value)):
        lookup = _LOOKUP.fullmatch(str(value))
        if lookup is None:
            return REDACTED
        return lookup[1] + (f",'{REDACTED}'" if lookup[2] else "") + lookup[3]
    return redact_word(value) if isinstance(value, str) else value


def redact_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration without secrets."""
    return redact_setting("", settings)


def is_credential(key: str) -> bool:
    """Whether the last word of a key names a password, token or key."""
    return _CREDENTIAL.fullmatch(key) is not None


def _environment_secrets() -> list[str]:
    """The values of environment variables that are named like secrets, the longest first."""
    values = {value for name, value in os.environ.items() if is_credential(name)}
    return sorted(filter(_is_secret, values), key=len, reverse=True)


def _is_secret(value: str) -> bool:
    """Whether the value of a variable is long enough to be one, and no path or number."""
    return (
        len(value) >= SHORTEST
        and not _PLAIN.fullmatch(value)
        and not os.path.lexists(value)  # as GOOGLE_APPLICATION_CREDENTIALS
    )
