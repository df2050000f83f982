"""The first test of a dataset and the run of an evaluation are found at any depth."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.description import describe_datasets
from fmsd.data.entries import from_entries
from fmsd.data.manifest import Manifest
from fmsd.data.sources import folder
from fmsd.errors import InputError
from fmsd.report.trainings import training_of
from fmsd.runs.earlier_tests import compare_with_first_tests, first_tests
from fmsd.runs.evaluations import finished_evaluations, run_of_evaluation
from fmsd.runs.folder import Run
from fmsd.tasks.evaluate import warn_of_changes
from fmsd.tasks.verify import verify
from tests.conftest import grow_tree
from tests.runs import evaluation, finished, sealed


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run that was tested on ff and celeb."""
    return sealed(finished(tmp_path / "run", ["method=lora"], 0))


def test_numbers_are_named_where_a_dataset_is_not_what_the_run_was_tested_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tested(videos: int) -> Manifest:
        root = grow_tree(tmp_path / str(videos), ("test",), videos=videos)
        frames = folder.scan(root / "test", "mine", "{domain}/{video}", {}, ["real"], split="test")  # pyright: ignore
        return from_entries(frames, root)

    before = {"manifests": {"test": describe_datasets(tested(2))}}
    warn_of_changes({"mine": tested(2), "new": tested(3)}, before)
    assert caplog.messages == []
    warn_of_changes({"mine": tested(3)}, before)
    (said,) = caplog.messages
    assert "mine is not what the run was tested on: 8 frames of 4 videos then, and 12 " in said
    flipped = tested(2)
    flipped = replace(flipped, table=flipped.table.with_columns(label=1 - pl.col("label")))
    warn_of_changes({"mine": flipped}, before)
    assert "8 frames of 4 videos then, and as many now, but other ones" in caplog.messages[-1]


def later(run: Run, name: str, when: int, content: int | None, finish: bool = True) -> Run:
    """A test on dfdc whose first file has a certain content, or of fmsd 0.1.0."""
    first = pl.when(pl.int_range(pl.len()) == 0).then(content).otherwise(7).cast(pl.UInt64)
    found = evaluation(
        run.folder,
        name,
        "dfdc",
        0,
        when,
        keep=lambda table: table if content is None else table.with_columns(content=first),
    )
    return sealed(found) if finish else found


def test_the_first_test_is_the_oldest_finished_one_at_any_depth(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    now = later(run, "z/9", 9_000, 1)
    assert first_tests(run, now, ["dfdc", "ff"]) == {}
    later(run, "a", 3_000, 1)
    later(run, "b", 1_000, 2, finish=False)
    later(run, "c", 500, None)
    assert first_tests(run, now, ["dfdc"])["dfdc"].folder == run.folder / "evaluations" / "a"
    assert compare_with_first_tests(first_tests(run, now, ["dfdc"]), now) == {}
    assert "have changed" not in caplog.text
    old = later(run, "sweep/0", 2_000, 3)
    later(run, "sweep/1", 2_500, 4)
    names = [one.folder.name for one in finished_evaluations(run)]
    assert names == ["c", "0", "1", "a", "9"]
    changes = compare_with_first_tests(first_tests(run, now, ["dfdc"]), now)
    assert changes["dfdc"] | {"first": ""} == {
        "since": str(old.folder),
        "changed": 1,
        "frames": 108,
        "first": "",
    }
    assert f"have changed since the test in {old.folder}" in caplog.text


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_earlier_test_is_named(run: Run, whole: bool) -> None:
    now, old = later(run, "2", 9_000, 1), later(run, "1", 1_000, 1)
    path = old.folder / "predictions" / "dfdc.parquet"
    if whole:  # a good table, and not what the test wrote
        pl.read_parquet(path).with_columns(content=pl.lit("7")).write_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"1/predictions/dfdc\.parquet"):
        first_tests(run, now, ["dfdc"])
    old.write_record({name: one for name, one in old.record().items() if name != "files"})
    assert first_tests(run, now, ["dfdc"]) == {}  # such a record is of a test that did not end
    (old.folder / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"1/run\.json"):
        first_tests(run, now, ["dfdc"])


def test_the_run_of_an_evaluation_of_a_sweep_is_found_after_it_was_moved(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = later(run, "date/0", 1_000, 1)
    two = later(run, "date", 1_000, 1)
    moved = tmp_path / "moved"
    shutil.move(run.folder, moved)
    for each in (one, two):
        place = moved / each.folder.relative_to(run.folder)
        assert run_of_evaluation(place) == moved
        assert training_of(Run(place), Run(place).record()) == moved.resolve()
        monkeypatch.chdir(place)
        assert run_of_evaluation(Path()) == moved
    assert run_of_evaluation(moved) is None
    assert run_of_evaluation(moved / "predictions" / "x") is None


@pytest.mark.parametrize("name", ["date", "date/0"])
def test_an_evaluation_of_other_weights_is_named_at_any_depth(run: Run, name: str) -> None:
    (run.folder / "adapter.safetensors").write_bytes(b"weights")
    sealed(run)
    one = later(run, name, 1_000, 1)
    weights = run.record()["files"]["adapter.safetensors"]
    one.finish(one.record() | {"weights": weights})
    verify(run.folder, None)
    (run.folder / "adapter.safetensors").write_bytes(b"of a training that went on")
    sealed(run)
    with pytest.raises(InputError, match=f"evaluations/{name} tested other weights than those"):
        verify(run.folder, None)
