"""The files of runs, merges and sweeps, read by every verb about a run."""

from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.conftest import Place
from tests.fuzz.files import mutations
from tests.fuzz.running import check_writes, judge, run, snapshot
from tests.fuzz.search import search

VERBS: tuple[tuple[str, ...], ...] = (
    ("evaluate", "run"),
    ("fold", "run", "out=new.safetensors"),
    ("merge", "merger=average", "experts=[run,other]", "out=new", "test=false"),
    ("merge", "add=other", "to=merged", "out=new", "test=false"),
    ("explain", "run", "images=1", "frames=4", "out=new"),
    ("report", "run", "resamples=5"),
    ("report", "run", "resamples=5", "out=new"),
    ("report", "run", "resamples=5", "out=new", "by=domain"),
    ("report", "runs=.", "resamples=5", "out=page"),
    ("cite", "run"),
    ("train", "resume=half"),
)  # fmt: skip


def files(place: Place, folder: str) -> list[str]:
    """The files of a run, without pictures."""
    root = place.template / "a" / "b" / "work"
    found = (path for path in (root / folder).rglob("*") if path.suffix not in (".png", ".pdf"))
    return sorted(str(path.relative_to(root)) for path in found if path.is_file())


def check(place: Place, file: str, content: bytes, words: tuple[str, ...]) -> None:
    """Runs a command on a run with a mutated file and judges what it did."""
    place.reset()
    (place.work / file).write_bytes(content)
    before = snapshot(place.root)
    judge(words, run(words, place.work))
    names = ("new", "new.safetensors", "run/evaluations", "run/explanations", "half", "page")
    places = [place.work / name for name in names]

    def allowed(path: Path) -> bool:
        return any(path.is_relative_to(each) for each in places)

    check_writes(before, snapshot(place.root), allowed, allowed)


def test_files_of_runs(place: Place) -> None:
    read = {
        words: files(place, {"resume=half": "half", "to=merged": "merged"}.get(word, "run"))
        for words in VERBS
        for word in [next((each for each in words if each in ("resume=half", "to=merged")), "")]
    }
    cases = st.sampled_from(VERBS).flatmap(
        lambda words: st.sampled_from(read[words]).flatmap(
            lambda file: st.tuples(
                st.just(file),
                mutations(place.template / "a" / "b" / "work" / file),
                st.just(words),
            )
        )
    )
    search(cases, lambda case: check(place, *case), cases=120, share=2.0)
