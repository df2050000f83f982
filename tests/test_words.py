"""Values of a wrong kind on the command line: one sentence, exit code 2, nothing written.

Most of these were found by tests/fuzz.
"""

from pathlib import Path

import pytest

from fmsd.cli.main import main
from tests.conftest import grow_tree
from tests.runs import finished

INDEX = ("index", "data=folder", "data.root=tree", "out=new.parquet")
TABLE = ("index", "data=table", "data.root=.", "out=new.parquet")
BENCH = ("index", "data=deepfakebench", "data.root=.", "out=new.parquet")
DOCTOR = ("doctor", "data=folder", "data.root=tree", "workers=0")
TRAIN = ("train", "data=folder", "data.root=tree", "trainer=smoke", "backbone=demo_vit")
REPORT = ("report", "runs=runs")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    grow_tree(tmp_path / "tree")
    finished(tmp_path / "runs" / "a", ["method=lora"], 0, datasets=("ff",))
    (tmp_path / "x.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "method=-1"), "method=-1 names no choice of its group"),
        (("train", "+method=nan"), "method=nan names no choice of its group"),
        (("train", "optimizer=3.6"), "optimizer=3.6 names no choice of its group"),
        (("train", "method={a:1}"), "method={a:1} names no choice of its group"),
        (("train", "loader@data=1"), "loader=1 names no choice of its group"),
        (("train", "hydra/launcher=1"), "hydra/launcher=1 names no choice of its group"),
        (("train", "logger=1"), "logger=1 names no choice of its group"),
        (("train", "logger=[1]"), "logger=[1] names no choice of its group"),
        (("train", "~method=1"), "The configuration cannot be composed"),
        ((*INDEX, "hydra=1"), "The configuration cannot be composed"),
        ((*INDEX, "hydra.verbose=1"), "The configuration cannot be composed"),
        ((*INDEX, "+hydra.job.env_set={A:[1]}"), "The configuration cannot be composed"),
        ((*TRAIN, "method.patterns=[1]"), "method.patterns has the element 1, which is no text"),
        ((*TRAIN, "backbone.size=0"), "cannot be built with img_size=0"),
        ((*TRAIN, "backbone.num_heads=0"), "cannot be built with"),
        ((*TRAIN, "data.workers=-1"), "data.workers=-1 is out of range"),
        ((*TRAIN, "+logger.x=1"), "logger.x=1 is no logger"),
        ((*TRAIN, "--package", "x", "--cfg", "job"), "--package names no part"),
        (("explain", "run=runs/a", "frames=null"), "frames=null is no whole number"),
        (("explain", "run=runs/a", "frames=2.5"), "frames=2.5 is no whole number"),
        (("explain", "run=runs/a", "layer=1"), "layer=1 is no text"),
        (("explain", "run=runs/a", "seed=-1"), "seed=-1 is out of range"),
        ((*DOCTOR, "limit=1.5"), "limit=1.5 is no whole number"),
        ((*DOCTOR, "workers=1.5"), "workers=1.5 is no whole number"),
        ((*DOCTOR, "out=null"), "fmsd doctor needs out, which cannot be null"),
        (("merge", "experts=[runs/a,x]", "ceiling=1", "merger=average"), "no run"),
        ((*INDEX[:3], "out=null"), "fmsd index needs out, which cannot be null"),
        ((*INDEX, "data.roots=null"), "data.roots=null is no setting"),
        ((*INDEX, "data.others=1"), "data.others=1 is no setting"),
        ((*INDEX, "data.source=null"), "data.source=null is no setting"),
        ((*INDEX, "data.source.layout=1"), "data.source.layout=1 is no text"),
        ((*INDEX, "data.source.layout=null"), "data.source.layout=null is no text"),
        ((*INDEX, "data.source.splits=null"), "data.source.splits=null is no mapping"),
        ((*TABLE, "data.source.file=null"), "data.source.file=null is no text"),
        ((*TABLE, "data.source.file=[a]"), "data.source.file=['a'] is no text"),
        ((*BENCH, "data.source.file=null"), "data.source.file=null is no list"),
        (
            (*BENCH, "data.source.file=x.json", "data.source.labels=1"),
            "data.source.labels=1 is no mapping",
        ),
        (("report", "runs=null"), "fmsd report needs runs, which cannot be null"),
        ((*REPORT, "differ=null"), "differ=null is no list"),
        ((*REPORT, "differ=1"), "differ=1 is no list"),
        ((*REPORT, "resamples=null"), "resamples=None leaves nothing to compare by"),
        ((*REPORT, "resamples=[1]"), "resamples=[1] is no number"),
        ((*REPORT, "against=1"), "against=1 is no row"),
        (("fold", "run=null", "out=a"), "fmsd fold needs run, which cannot be null"),
        (("fold", "run=runs/a", "out=null"), "fmsd fold needs out, which cannot be null"),
        (("fold", "run=runs/a", "out=a", "trust=1"), "trust=1 is no list"),
        (("evaluate", "run=null"), "fmsd evaluate needs run, which cannot be null"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(
    place: Path,
    words: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(place.rglob("*"))
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "fmsd: " in told
    assert sentence in told
    assert sorted(place.rglob("*")) == before
