"""Passwords, tokens and keys, which no file, log, service or error message gets to hold.

They are known by their place (`user:password@host`, the value of a key that ends in `token`), by
their shape (`ghp_...`), or as the value of an environment variable with such a name.

A setting of the computation, such as `method.pool_token`, is one by its shape or its place in an
address alone: without its value, two computations could not be told apart.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

REDACTED = "***"
"""What stands in place of a password, token or key."""

SHORTEST = 8
"""Characters that the value of an environment variable must have to be looked for in a text."""

LONGEST_NUMBER = 5
"""Characters that a number may have at most as the value of a password without being one."""

COMPUTED = (
    "backbone", "cache_features", "ceiling", "choices", "corrupt", "coverage", "data", "experts",
    "head", "learner", "loss", "merger", "method", "optimizer", "overlap", "patience", "run",
    "save_every", "schedule", "search", "seed", "select", "severities", "test", "trainer",
    "wrapper",
)  # fmt: skip
"""First words of the keys of the computation, on which results depend."""

_NAME = (
    r"(?:password|passwd|passphrase|(?<![a-z])pwd|token|secret|credentials?|api[_-]?key"
    r"|access[_-]?key|account[_-]?key|secret[_-]?key|private[_-]?key"
    r"|(?<=[_-])(?:pass|auth)|(?<![a-z])(?:pass|auth)(?=[\"']?=|\Z))"
)
"""The end of a name whose value is a secret; `pass: ` alone is prose."""

_CREDENTIAL = re.compile(rf".*{_NAME}", re.IGNORECASE | re.DOTALL)

_OF_SOURCE = re.compile(r"\+*data\.(?:.*\.)?source\..*")
"""Keys of the source of a dataset, which may need a password; the frames have their own digest."""

_PASSWORD = re.compile(r".*(?:password|passwd|passphrase|pwd)", re.IGNORECASE | re.DOTALL)
"""Names whose value is a secret even if it is a long number."""

_PLAIN = re.compile(
    r"null|none|true|false|[-+]?\d*(?:\.\d*)?(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII
)
"""Values that are no secret."""

_KEY = re.compile(r"(?:.*[^a-z])?key", re.IGNORECASE | re.DOTALL)

_KEY_VALUE = r"(?=[A-Za-z]*\d)[0-9A-Za-z]{32,}"
"""A value that is a secret where its name is `key`."""

_SIGN = r"[\"']?(?:=|:\s+|:(?=[\"']))"

_SHAPES = (
    # ://user:password@host: up to the last @, as there may be an @ or a slash in a password
    (
        re.compile(
            r"(://(?:[^\s/?#'\"@:$]|\$\{[^}]*\})*:)(?!\$\{|\d{1,5}[/?#,;)\]}])"
            r"(?:(?!://)[^\s'\"])+(?=@)"
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(://)[^\s/?#'\"@:]{20,}(?=@)"), rf"\1{REDACTED}"),
    # user:password@host:port
    (
        re.compile(
            r"(?<![\w/@.:+-])([A-Za-z_][\w.+-]*:)(?!//)[^\s:'\"{}]+"
            r"(?=@[\w-]+(?:\.[\w-]+)*:\d{2,5}(?![\w.]))"
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(r"([?&](?:sig|key|auth|[\w-]*signature)=)(?!\$\{)[^\s&#'\",]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(
            r"(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)[\w.~+/=-]{8,}"
            r"|(\bbearer\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{16,}",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    # Hugging Face, GitHub, GitLab, AWS, Google, OpenAI and others, Slack, Weights & Biases, JWT
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
            r"|glpat-[\w-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[a-z]-[\w-]{10,}"
            r"|wandb_v\d_\w{20,}"
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
"""Texts that hold a secret, by its shape or its place in an address, and what they become."""

_NAMED = (
    # the default of a lookup: password=${oc.env:NAME,DEFAULT}
    (
        re.compile(rf"({_NAME}{_SIGN}[\"']?\$\{{oc\.env:[^,}}]*,)[^}}]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # --token VALUE
    (
        re.compile(rf"((?<!\S)--?[\w-]*?{_NAME}\s+)(?![-\s])\S+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(rf"((?<![a-z])key{_SIGN}[\"']?){_KEY_VALUE}", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
)
"""Texts that hold a secret behind a name, and what they become."""

_ASSIGNED = re.compile(
    rf"(?<![\w.])([\w.]*?{_NAME})({_SIGN})(?!\$\{{)(\"[^\"]*\"|'[^']*'|[^\s,;&#\"'}}\])]+)",
    re.IGNORECASE,
)
"""A key that ends like the name of a secret, a sign, and its value."""

_LOOKUP = re.compile(r"([\"']?(?:\$\{[\w.]+:[\"']?)+\w+)(,[^}]*)?([}\"']+)")
"""A value that is looked up, in three parts: the variable, its default, and what closes it."""

_looked_up: set[str] = set()


def redact(text: str) -> str:
    """A text with `***` in place of every password, token and key."""
    text = _replace_words(text, _environment_secrets())
    for pattern, replacement in (*_NAMED, *_SHAPES):
        text = pattern.sub(replacement, text)
    return _ASSIGNED.sub(_redact_assigned, text)


def _redact_assigned(match: re.Match[str]) -> str:
    key, sign, value = match.groups()
    if not is_credential(key) or _is_plain(key, value.strip("\"'")):
        return match[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{key}{sign}{mark}{REDACTED}{mark}"


def _redact_shapes(text: str) -> str:
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text


def _replace_words(text: str, secrets: Iterable[str]) -> str:
    """Replaces secrets that are whole words, the longest first; one in a path is none."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret in text:
            whole = rf"(?<![\w/\\.-]){re.escape(secret)}(?![\w/\\-]|\.\w)"
            text = re.sub(re.escape(secret) if "://" in secret else whole, REDACTED, text)
    return text


def redact_message(text: str) -> str:
    """The text of an error or a log without secrets and the values that `note_lookup` was told."""
    return redact(_replace_words(text, _looked_up))


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
    if not sign or not re.fullmatch(r"[\w.+~/@-]+", key):
        return redact(word)
    several = re.search(r",[\w.+~/@-]+=", value)  # as in Hydra's `override_dirname`
    known = (is_computed(key) and not several) or _is_named_secret(key, value)
    return f"{key}={redact_setting(key, value)}" if known else redact(word)


def redact_words(command: Sequence[str]) -> list[str]:
    """The words of a command line without secrets."""
    before = ["", *command][: len(command)]
    return [
        REDACTED if _takes_secret(option) and not word.startswith("-") else redact_word(word)
        for option, word in zip(before, command, strict=True)
    ]


def _takes_secret(word: str) -> bool:
    """Whether a word of a command line is an option such as `--token`, whose value comes next."""
    return re.fullmatch(r"--?[\w-]+", word) is not None and is_credential(word)


def identifying_words(overrides: Sequence[str]) -> list[str]:
    """Overrides as they tell computations apart, only to be hashed.

    Those of the computation are whole: a hash of many settings reveals none of them. All others
    are without secrets: an experiment stays the same where only a password changes.
    """
    return [
        word if is_computed(word.partition("=")[0]) else redact_word(word) for word in overrides
    ]


def redact_setting(key: str, value: Any) -> Any:
    """The value of a setting without secrets: a text, or a mapping or list of settings.

    Args:
        key: the dotted key of the setting.
    """
    if isinstance(value, dict):
        return {
            name: redact_setting(
                key if is_credential(key) else f"{key}.{name}" if key else str(name), part
            )
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [redact_setting(key, part) for part in value]
    if isinstance(value, str | int) and not isinstance(value, bool):
        if _is_named_secret(key, str(value)):
            return _redact_named(str(value))
        if isinstance(value, str):
            return _redact_shapes(value) if is_computed(key) else redact_word(value)
    return value


def _redact_named(value: str) -> str:
    """A secret that is known by its key; the lookup of a variable stays, without its default."""
    lookup = _LOOKUP.fullmatch(value)
    if lookup is None:
        return REDACTED
    return lookup[1] + (f",'{REDACTED}'" if lookup[2] else "") + lookup[3]


def redact_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration without secrets."""
    return redact_setting("", settings)


def is_computed(key: str) -> bool:
    """Whether a dotted key, or a group of an override, is of the computation."""
    return re.split(r"[./@]", key.lstrip("+~"), maxsplit=1)[0] in COMPUTED


def is_source(key: str) -> bool:
    """Whether a dotted key is one of the source of a dataset."""
    return _OF_SOURCE.fullmatch(key) is not None


def is_credential(key: str) -> bool:
    """Whether the last word of a dotted key names a password, token or key.

    Of the computation, only keys such as `data.source.token` do, whose whole last word is one.
    """
    if is_computed(key) and "." in key:
        last = key.rpartition(".")[2]
        return is_source(key) and re.fullmatch(_NAME, last, re.IGNORECASE) is not None
    return _CREDENTIAL.fullmatch(key) is not None


def looks_up_credential(text: str) -> bool:
    """Whether a text looks up an environment variable that is named like a secret."""
    return any(is_credential(name) for name in re.findall(r"\$\{oc\.env:(\w+)", text))


def _is_named_secret(key: str, value: str) -> bool:
    """Whether a value is a secret because of its key."""
    if is_credential(key):
        return not _is_plain(key, value)
    keyed = _KEY.fullmatch(key) and re.fullmatch(_KEY_VALUE, value)
    return bool(keyed) and not is_computed(key)


def _is_plain(key: str, value: str) -> bool:
    """Whether a value is no secret under any name: a number, as long as it is no password."""
    short = len(value) <= LONGEST_NUMBER or not _PASSWORD.fullmatch(key)
    return short and _PLAIN.fullmatch(value) is not None


def _environment_secrets() -> list[str]:
    """The values of environment variables that are named like secrets."""
    return [
        value for name, value in os.environ.items() if is_credential(name) and _is_secret(value)
    ]


def _is_secret(value: str) -> bool:
    """Whether the value of a variable is long enough to be one, and no path or number."""
    return (
        len(value) >= SHORTEST
        and not _PLAIN.fullmatch(value)
        and not os.path.lexists(value)  # as GOOGLE_APPLICATION_CREDENTIALS
    )
