"""Words of the command line: of every verb, with wrong, missing and surplus values."""

import os
from pathlib import Path

import pytest
from hypothesis import strategies as st

from fmsd.cli.refusal import default_values
from tests.fuzz.conftest import DATA, TINY, Place
from tests.fuzz.running import check_writes, judge, run, snapshot
from tests.fuzz.search import search
from tests.fuzz.values import altered_words

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("train", *TINY, "method=probe", "hydra.run.dir=new"),
    ("train", *TINY, "method=lora", "wrapper=roga"),
    ("train", "resume=half"),
    ("evaluate", "run=run"),
    ("evaluate", "run", *DATA, "hydra.run.dir=new"),
    ("evaluate", "run", "corrupt=[jpeg]", "severities=[1]"),
    ("explain", "run=run", "images=1", "frames=4", "out=new"),
    ("fold", "run=run", "out=new.safetensors"),
    ("predict", "run=run", "films", "frames=2", "device=cpu", "out=new"),
    ("push", "run=run", "repo=me/new", "out=new"),
    ("merge", "merger=average", "experts=[run,other]", "out=new", "test=false"),
    ("merge", "merger=ties", "experts=[run,other]", "search='density=0.1,0.2'", "on=folder"),
    ("merge", "add=run", "to=merged", "out=new", "test=false"),
    ("extract", "data=folder", "data.root=films", "frames=1", "size=32", "workers=1", "out=new"),
    ("index", *DATA, "out=new.parquet"),
    ("index", "data=table", "data.root=.", "data.source.file=table.csv", "out=new.parquet"),
    ("index", "data=extracted", "data.root=crops", "out=new.parquet"),
    ("doctor", *DATA, "out=new.json", "workers=0"),
    ("roots",),
    ("import", "scores=scores.csv", *DATA, "out=new", "by=path", "higher=fake"),
    ("verify", "run=run"),
    ("verify", "runs=."),
    ("pack", *DATA, "out=new"),
    ("report", "runs=.", "resamples=10"),
    ("report", "runs=run", "resamples=10", "out=new", "by=domain"),
    ("report", "runs=.", "resamples=10", "out=page", "against=lora", "differ=[augment]"),
    ("cite", "run=run", "out=new.bib"),
    ("cite", "runs=."),
    ("reproduce", "merge", "seed=0", "out=new"),
    ("dashboard", "entity=me"),
    ("completion", "bash"),
    ("_complete", "3", "fmsd", "train", "data="),
    ("train", "--help", "method=fmsd"),
    ("train", *TINY, "--cfg", "job"),
)  # fmt: skip

SMALL = (
    "trainer", "data.workers", "workers", "backbone.size", "data.size", "resamples", "size",
    "data.batch_size", "images", "frames", "hydra.launcher", "hydra.sweeper", "patience",
    "learner.accumulate", "method.rank", "method.subspaces", "method.directions", "backbone.",
)  # fmt: skip
"""Keys whose large values take long, as they should."""

HYDRA = (
    "hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.verbose", "hydra", "hydra.job.name",
    "hydra.sweep.subdir", "hydra.output_subdir", "-m", "--multirun", "--json", "--config-dir",
    "--config-name", "--cfg", "--resolve", "--package", "--help", "--info",
)  # fmt: skip


GROUPS = (
    "data", "loss", "method", "backbone", "logger", "optimizer", "protocol", "merger",
    "experiments",
)  # fmt: skip


def keys_of(verb: str, words: tuple[str, ...]) -> list[str]:
    """The keys of a verb, and options."""
    if verb in ("completion", "_complete", "reproduce"):
        return ["out", "seed", "data.root", *HYDRA]
    known = default_values(verb, [word for word in words if word in DATA], "")
    return [*sorted({*known, *GROUPS}), *HYDRA]


OUTPUT_KEYS = (
    "out", "hydra.run.dir", "hydra.sweep.dir", "hydra.output_subdir", "run", "resume",
)  # fmt: skip
"""Keys of places that a command may write to."""


def outputs(words: tuple[str, ...], place: Place) -> list[Path] | None:
    """The places that a command may write to; None if its words do not show them plainly."""
    found = [place.work / name for name in ("runs", "sweeps", "doctor")]
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+~") in OUTPUT_KEYS:
            text = value.strip("'\"")
            if any(character in text for character in "$\\'\"{}[](),*"):
                return None
            home = text.startswith("~")
            path = Path(text.replace("~", str(place.root / "home"), 1) if home else text)
            found.append(Path(os.path.normpath(place.work / path)))
    if "run" in words[1:]:
        found.append(place.work / "run")
    return found


OWN = ("half", "page", "manifest.parquet", "new")


def check(place: Place, words: tuple[str, ...]) -> None:
    """Runs a command and judges what it did."""
    place.reset()
    outcome = run(words, place.work)
    judge(words, outcome)
    allowed = outputs(words, place)

    def may_create(path: Path) -> bool:
        if allowed is None:
            return path.is_relative_to(place.work) or path.is_relative_to(place.root / "home")
        return any(path.is_relative_to(each) or each.is_relative_to(path) for each in allowed)

    def may_change(path: Path) -> bool:
        own = [place.work / name for name in OWN]
        return any(path.is_relative_to(each) for each in own) and may_create(path)

    check_writes(place.before, snapshot(place.root), may_create, may_change)


def affordable(words: tuple[str, ...]) -> bool:
    """Whether a command trains no more than one step: it is `TINY`, or continues a run."""
    resumed = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("resume=")]
    return words[0] != "train" or {*TINY[2:]} <= {*words} or resumed[-1:] not in ([], ["null"])


@pytest.mark.parametrize("trains", [True, False])
def test_words(place: Place, trains: bool) -> None:
    commands = [words for words in COMMANDS if (words[0] == "train") == trains]
    keys = {words: keys_of(words[0], words) for words in commands}
    kept = ("data=folder", *TINY[2:])
    cases = st.sampled_from(commands).flatmap(
        lambda words: altered_words(words, kept, keys[words], SMALL)
    )
    search(cases.filter(affordable), lambda words: check(place, words), cases=60)
