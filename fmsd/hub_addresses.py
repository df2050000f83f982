"""Addresses of runs on the Hugging Face Hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION`."""

import re
from pathlib import Path
from typing import NamedTuple

from fmsd.errors import InputError

SCHEME = "hf://"

CARD = "README.md"
"""The page that the Hub shows of a repository."""

PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
"""The name of a user or of a repository, as the Hub allows it."""

REVISION = r"(?!.*(?:\.\.|//|@\{))[\w][\w./+-]{0,199}"
"""The name of a branch or tag, or a commit."""

OUTPUTS = Path("runs/hf")
"""Where verbs write about runs on the Hub, whose own folder is a cache: below USER/NAME."""

SHORT = 8
"""Characters of a commit in the names of folders and in titles."""

COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    """The address of a run on the Hub.

    Args:
        repo: USER/NAME.
        revision: a branch, tag or commit; None for the default branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return SCHEME + self.repo + (f"@{self.revision}" if self.revision else "")


def is_address(text: object) -> bool:
    """Whether a text that names a run means one on the Hub."""
    return isinstance(text, str) and text.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """The address in a text that begins with `hf://`.

    Raises:
        InputError: it has another form.
    """
    repo, sign, revision = text.removeprefix(SCHEME).partition("@")
    if not is_repo(repo) or (sign and not re.fullmatch(REVISION, revision, re.ASCII)):
        raise InputError(
            f"{text} is no address of a run on the Hub",
            "give hf://USER/NAME, or hf://USER/NAME@REVISION with a branch, a tag or a commit",
        )
    return Address(repo, revision or None)


def is_repo(text: object) -> bool:
    """Whether a text is USER/NAME with names that the Hub allows."""
    return isinstance(text, str) and bool(re.fullmatch(f"{PART}/{PART}", text, re.ASCII))


def address_of(folder: Path) -> str | None:
    """The address, with its commit, of a run in the cache of the Hub; None for any other folder.

    The cache keeps a repository as `models--USER--NAME/snapshots/COMMIT`.
    """
    repo, snapshots, commit = ("", "", *folder.parts)[-3:]
    kind, _, name = repo.partition("--")
    user, _, name = name.partition("--")
    if kind != "models" or snapshots != "snapshots" or not COMMIT.fullmatch(commit):
        return None
    return str(Address(f"{user}/{name}", commit)) if is_repo(f"{user}/{name}") else None


def place_name(folder: Path) -> str:
    """How a record names the folder of a run: by its path, or by its address on the Hub."""
    return address_of(folder) or str(folder)


def title_name(folder: Path) -> str:
    """How a picture or a table names a run: by its folder, or by USER/NAME and a short commit."""
    if (address := address_of(folder)) is None:
        return folder.name
    repo, commit = parse_address(address)
    return f"{repo}@{(commit or '')[:SHORT]}"


def output_folder(run: Path) -> Path:
    """The folder into which a verb writes what it makes of a run: the run, if it is the user's.

    Each commit of a run on the Hub has its own: `runs/hf/USER/NAME/COMMIT`, the commit shortened.
    """
    if (address := address_of(run)) is None:
        return run
    repo, commit = parse_address(address)
    return OUTPUTS / repo / (commit or "")[:SHORT]


def outputs_of(word: str) -> str:
    """The folder for the evaluations of a run, which is given by its path or address.

    A run on the Hub may not be fetched yet: evaluations of all commits share a folder, in which
    each has its own, and records the commit.

    Raises:
        InputError: it is no address, though it begins as one.
    """
    return str(OUTPUTS / parse_address(word).repo) if is_address(word) else word
