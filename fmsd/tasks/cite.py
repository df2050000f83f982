"""Citing: the BibTeX entries of what runs used."""

import logging
from pathlib import Path

from fmsd.citations import papers
from fmsd.errors import InputError, sentence
from fmsd.ownership import check_replaceable
from fmsd.runs.configuration import read_configuration
from fmsd.runs.folder import Run, write_text
from fmsd.runs.listing import recorded_runs
from fmsd.runs.papers import bibliography, cited_papers, is_written_by

log = logging.getLogger(__name__)

WRITER = "fmsd cite"
"""The writer that a file names in its first line."""


def cite(run: Path | None, runs: Path | None, out: Path | None = None) -> str:
    """Prints or writes the BibTeX entries of what a run used, or all runs below a folder.

    The evaluations in a run's folder and the experts of a merge are included.

    Args:
        run: folder of a run.
        runs: a folder of runs, in place of `run`.
        out: FILE.bib; None to print.

    Returns:
        The text of the file.

    Raises:
        InputError: there is no run, one is damaged, fmsd's own bibliography is damaged, or `out` is
            a file that `cite` did not write.
    """
    papers()
    if out is not None:
        check_file(out)
    found = recorded_runs(run, runs, "cite")
    for one in found:
        check_readable(one)
    cited = cited_papers(found)
    for skipped in sorted(cited.skipped):
        log.warning(sentence(skipped))
    text = bibliography(cited, WRITER)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        print(f"{len(cited.parts)} entries lie in {out}")
    return text


def check_readable(run: Run) -> None:
    """Checks that what a run has recorded can be read.

    Raises:
        InputError: it is damaged, or not what the run wrote.
    """
    run.check(run.config.name)
    run.record()
    if run.config.is_file():
        read_configuration(run.folder)


def check_file(out: Path) -> None:
    """Checks that a file can be written.

    Raises:
        InputError: it has another suffix, or is a file of another writer.
    """
    if out.suffix != ".bib":
        raise InputError(f"out={out} is no name of a BibTeX file", "give out=FILE.bib")
    check_replaceable(
        [out], out, lambda file: is_written_by(file, WRITER), WRITER, "give another out=FILE.bib"
    )
