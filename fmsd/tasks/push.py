"""Pushing: a run with its model card to the Hugging Face Hub, or into a folder to look at."""

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fmsd.atomic import atomic
from fmsd.console import print_place, print_table
from fmsd.errors import InputError
from fmsd.hub_addresses import CARD, Address, is_address, is_repo, parse_address
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.model_card import model_card
from fmsd.inference.run_facts import run_facts
from fmsd.json_output import open_document
from fmsd.runs.folder import Run, owning_run
from fmsd.runs.published import Content, published_files

log = logging.getLogger(__name__)

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push(
    run: Run,
    repo: str,
    out: Path | None = None,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    predictions: bool = False,
) -> None:
    """Uploads a run in one commit, so that `hf://USER/NAME` loads it again.

    Args:
        repo: USER/NAME.
        out: a new folder to write the same files into, instead of uploading them.
        private: whether the repository must be private; a new one is made so.
        revision: a branch; None for the default one.
        licence: the Hub's identifier of a licence, for the card.
        predictions: also upload the predictions, with the names of the frames' files.

    Raises:
        InputError: no such name, folder or licence; the run cannot be published, or a file of it
            was changed; there is no token, or the Hub refuses. Nothing is uploaded then.
    """
    address = parse_repo(repo, revision)
    check_licence(licence)
    if out is not None:
        check_new_folder(out)
    else:
        from fmsd.runs.hub import check_login  # noqa: PLC0415  imports the Hub's library

        check_login()
    files = files_with_card(run, address, licence, predictions)
    print_table(
        f"Files of {run.folder} to publish",
        ["", "bytes"],
        [[name, f"{size_of(content):,}"] for name, content in files.items()],
        name="files",
        records=[{"file": name, "bytes": size_of(content)} for name, content in files.items()],
    )
    if "imported" in run.record():
        whose = "no license= was given" if licence is None else f"license={licence} must be theirs"
        log.warning(
            "The weights of %s belong to those who published them, who have to allow that they are "
            "published anew; %s.",
            run.folder,
            whose,
        )
    if out is not None:
        write_files(out, files)
        print_place(f"Nothing was uploaded; the files lie in {out}", out)
        return
    from fmsd.runs.hub import repository_url, upload  # noqa: PLC0415

    pushed = upload(address, files, private, "A run of fmsd")
    if (document := open_document()) is not None:
        document.out = str(pushed)
    print(f"The run is {pushed}; its page is {repository_url(pushed)}")


def files_with_card(
    run: Run, address: Address, licence: str | None, predictions: bool
) -> dict[str, Content]:
    """The files of a run to publish, with the card."""
    files = published_files(run, file_names_too=predictions)
    facts = replace(published_facts(files), name=address.repo)
    return {CARD: model_card(address, run, facts, licence).encode(), **files}


def published_facts(files: Mapping[str, Content]) -> DetectorFacts:
    """The facts of a detector as whoever fetches these files computes them.

    Raises:
        InputError: the files are no run that can be used.
    """
    with tempfile.TemporaryDirectory(prefix="fmsd-push-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.symlink_to(content.absolute())
        return run_facts(Run(Path(folder)))


def parse_repo(repo: str, revision: str | None) -> Address:
    """The address of a repository that is given as USER/NAME.

    Raises:
        InputError: it has another form.
    """
    if is_address(repo) and revision is None:
        return parse_address(repo)
    if not is_repo(repo):
        raise InputError(
            f"repo={repo} is no name of a repository",
            "give USER/NAME: letters, digits, and . _ - inside of a name",
        )
    return parse_address(str(Address(repo, revision)))


def check_licence(licence: str | None) -> None:
    """Checks that a licence is an identifier as the Hub uses them.

    Raises:
        InputError: it is none.
    """
    if licence is not None and not LICENCE.fullmatch(str(licence)):
        small = str(licence).strip().lower().replace(" ", "-")
        meant = small if LICENCE.fullmatch(small) else "cc-by-nc-4.0"
        raise InputError(
            f"license={licence} is no identifier of a licence",
            f"give one as the Hub spells it, such as license={meant} or license=other",
        )


def check_new_folder(out: Path) -> None:
    """Checks that a folder to write into is new or empty, and no part of a run.

    Raises:
        InputError: it is something else.
    """
    if place := owning_run(out):
        raise InputError(
            f"out={out} lies among the files of the run in {place}", "give another out=FOLDER"
        )
    if (out / CARD).is_file() and (out / "run.json").is_file():
        raise InputError(
            f"out={out} holds the files of a run that was written before",
            "look at them and remove the folder, or give a new one as out=FOLDER",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out={out} is there already", "give a new folder as out=FOLDER")


def size_of(content: Content) -> int:
    """The size of a file to publish, in bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def write_files(out: Path, files: Mapping[str, Content]) -> None:
    """Writes files into a folder; `run.json`, which is the last, makes it that of a run."""
    for name, content in files.items():
        with atomic(out / name) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
