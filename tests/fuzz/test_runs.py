"""The files of runs, merges and sweeps, read by every verb about a run."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import strategies as st

from fmsd.runs.folder import Run
from fmsd.runs.integrity import DETECTOR_FILES
from tests.fuzz.conftest import Place
from tests.fuzz.files import mutations
from tests.fuzz.running import Outcome, check_writes, judge, run, snapshot
from tests.fuzz.search import search
from tests.runs import sealed

Words = tuple[str, ...]

VERBS: tuple[Words, ...] = (
    ("evaluate", "run"),
    ("fold", "run", "out=new.safetensors"),
    ("merge", "merger=average", "experts=[run,other]", "out=new", "test=false"),
    ("merge", "add=other", "to=merged", "out=new", "test=false"),
    ("explain", "run", "images=1", "frames=4", "out=new"),
    ("report", "run", "resamples=5"),
    ("report", "run", "resamples=5", "out=new"),
    ("report", "run", "resamples=5", "out=new", "by=domain"),
    ("report", "runs=.", "resamples=5", "out=page"),
    ("verify", "run"),
    ("cite", "run"),
    ("train", "resume=half"),
)  # fmt: skip

MUTATED = {"resume=half": "half", "to=merged": "merged"}
"""By word, the folder whose files are mutated; `run` without one of these words."""

RESULTS = {
    ("evaluate", "run"): "run/evaluations/*/results.csv",
    ("report", "run", "resamples=5", "out=new"): "new/results.csv",
    ("report", "run", "resamples=5", "out=new", "by=domain"): "new/domains.csv",
    ("report", "runs=.", "resamples=5", "out=page"): "page/results.csv",
    ("train", "resume=half"): "half/results.csv",
}
"""The tables of results that commands write."""

NUMBERS = ("value", "low", "high", "n_frames", "n_videos", "n_real_videos")

Results = list[tuple[Any, ...]]


def mutated_folder(words: Words) -> str:
    """The folder whose files are mutated for a command."""
    return next((MUTATED[word] for word in words if word in MUTATED), "run")


def files(place: Place, folder: str) -> list[str]:
    """The files of a run, without pictures."""
    root = place.template / "a" / "b" / "work"
    found = (path for path in (root / folder).rglob("*") if path.suffix not in (".png", ".pdf"))
    return sorted(str(path.relative_to(root)) for path in found if path.is_file())


def owner(path: Path) -> Path:
    """The folder of the run, or the evaluation, that a file belongs to."""
    return next(parent for parent in path.parents if (parent / "run.json").is_file())


def written_results(place: Place, words: Words) -> Results:
    """The numbers that a command has written, sorted; none if it writes no results."""
    tables = sorted(place.work.glob(RESULTS[words])) if words in RESULTS else []
    if not tables:
        return []
    newest = max(tables, key=lambda path: path.stat().st_mtime_ns)
    table = pl.read_csv(newest, infer_schema=False)
    keys = [name for name in ("dataset", "domain", "level", "metric") if name in table.columns]
    numbers = [name for name in NUMBERS if name in table.columns]
    return sorted(table.select(*keys, *numbers).rows(), key=repr)


def check(
    place: Place, right: dict[Words, Results], file: str, content: bytes, words: Words, seal: bool
) -> None:
    """Runs a command on a run with a mutated file and judges what it did.

    Args:
        right: by command, the results without a mutation.
        seal: the record of the run gets the digests of its files as they are now, so that what
            reads the file meets the mutation.
    """
    place.reset()
    path = place.work / file
    same, home = path.read_bytes() == content, owner(path)
    bound = path.relative_to(home).as_posix() in (Run(home).record()["files"] or {})
    path.write_bytes(content)
    seal = seal and bound
    if seal:
        sealed(Run(home))
    before = snapshot(place.root)
    outcome = run(words, place.work)
    judge(words, outcome)
    names = ("new", "new.safetensors", "run/evaluations", "run/explanations", "half", "page")
    places = [place.work / name for name in names]

    def allowed(path: Path) -> bool:
        return any(path.is_relative_to(each) for each in places)

    check_writes(before, snapshot(place.root), allowed, allowed)
    if words[0] == "verify":
        assert (outcome.code == 2) or same or seal or not bound, f"not noticed: {file}"
    if outcome.code == 0 and words in RESULTS and not decides(words, path.name, seal):
        check_results(right[words], written_results(place, words), path, outcome)


def decides(words: Words, name: str, seal: bool) -> bool:
    """Whether a changed file may lead to other results: nothing could tell that it was changed."""
    if words[0] == "train":
        return name == "config.yaml"
    return words[0] == "evaluate" and seal and name in DETECTOR_FILES


def check_results(right: Results, found: Results, path: Path, outcome: Outcome) -> None:
    """Checks that results are those without a mutation, or that the command names the file."""
    if found == right or path.name in outcome.err:
        return
    odd = [pair for pair in zip(right, found, strict=False) if pair[0] != pair[1]]
    raise AssertionError(f"other results without a word about {path.name}: {odd[:3]}")


@pytest.fixture(scope="module")
def right(place: Place) -> dict[Words, Results]:
    """By command, the results without a mutation."""
    found = {}
    for words in RESULTS:
        place.reset()
        outcome = run(words, place.work)
        assert outcome.code == 0, outcome
        found[words] = written_results(place, words)
        assert found[words], words
    return found


def test_files_of_runs(place: Place, right: dict[Words, Results]) -> None:
    read = {words: files(place, mutated_folder(words)) for words in VERBS}
    cases = st.sampled_from(VERBS).flatmap(
        lambda words: st.sampled_from(read[words]).flatmap(
            lambda file: st.tuples(
                st.just(file),
                mutations(place.template / "a" / "b" / "work" / file),
                st.just(words),
                st.booleans(),
            )
        )
    )
    search(cases, lambda case: check(place, right, *case), cases=120, share=2.0)
