"""A number is bound to its files, and training frames do not test their own training."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data import content_files
from fmsd.data.content_files import read_contents
from fmsd.data.entries import from_entries
from fmsd.data.manifest import Manifest
from fmsd.data.overlap import count_overlap, shared_frames
from fmsd.data.pack import write_pack
from fmsd.data.prepared_folder import prepared_manifest
from fmsd.data.sources import folder
from fmsd.errors import InputError
from fmsd.runs.folder import Run
from tests.conftest import fmsd_command, grow_tree, write_image
from tests.runs import sealed

SMALL = ("trainer=smoke", "backbone=demo_vit", "method=probe", "data.workers=0")


def copied(source: Path, target: Path) -> None:
    for number, file in enumerate(sorted(source.rglob("*.png"))):
        place = target / file.parent.parent.name / f"v{number}" / "9.png"
        place.parent.mkdir(parents=True)
        shutil.copyfile(file, place)


def with_links(link: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def linked(source: Path, target: Path) -> None:
        copied(source, target)
        for file in sorted(target.rglob("*.png")):
            own = next(
                one for one in source.rglob("*.png") if one.read_bytes() == file.read_bytes()
            )
            file.unlink()
            link(own, file)

    return linked


def packed(source: Path, target: Path) -> None:
    copied(source, target.with_name("loose"))
    loose = scanned(target.with_name("loose"))
    write_pack(loose.table, loose.files(), target, 10_000)


WAYS = {
    "copies": copied,
    "hard links": with_links(os.link),
    "symbolic links": with_links(lambda own, file: file.symlink_to(own)),
    "a linked folder": lambda source, target: target.symlink_to(source, target_is_directory=True),
    "a pack": packed,
}
"""Ways to have the same frames under other names."""


def scanned(root: Path) -> Manifest:
    frames = folder.scan(root, "other", "{domain}/{video}", {}, ["real"], split="test")  # pyright: ignore
    return prepared_manifest(root) or from_entries(frames, root)


@pytest.mark.parametrize("way", WAYS)
def test_training_frames_are_recognised_under_any_name(
    way: str, tree: Path, tmp_path: Path
) -> None:
    WAYS[way](tree / "train", tmp_path / "other")
    test = scanned(tmp_path / "other")
    training = read_contents(scanned(tree / "train"))
    shared = shared_frames(test, training)
    assert sorted(shared["path"]) == sorted(test.table["path"])
    assert set(shared["path_trained"]) == set(training["path"])
    assert shared_frames(test, read_contents(scanned(tree / "val"))).is_empty()
    with pytest.raises(InputError, match=r"8 of the 8 test frames of other are training or valid"):
        count_overlap({"other": test}, training, "refuse")
    assert count_overlap({"other": test}, training, "allow") == {"other": 8}
    assert count_overlap({"other": test}, None, "refuse") == {"other": None}


def test_only_equal_bytes_count_and_the_first_pair_is_named(tree: Path, tmp_path: Path) -> None:
    copied(tree / "test", tmp_path / "other")
    kept = scanned(tmp_path / "other").table["path"][2]
    own = tree / "train" / "swap" / "train1" / "1.png"
    shutil.copyfile(own, tmp_path / "other" / kept)
    training = read_contents(scanned(tree / "train"))
    with pytest.raises(InputError) as refused:
        count_overlap({"other": scanned(tmp_path / "other")}, training, "refuse")
    assert "1 of the 8 test frames" in str(refused.value)
    assert f"{kept} (swap/train1/1.png in training) for one" in str(refused.value)
    with (tmp_path / "other" / kept).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    assert count_overlap({"other": scanned(tmp_path / "other")}, training, "refuse") == {"other": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, and a run that was trained on it."""
    home = tmp_path_factory.mktemp("trained")
    grow_tree(home / "data")
    command = ["train", "data=folder", f"data.root={home / 'data'}", *SMALL]
    assert main([*command, f"hydra.run.dir={home / 'run'}"]) == 0
    return home


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write into, with data that it may change."""
    shutil.copytree(trained / "data", tmp_path / "data")
    return shutil.copytree(trained / "run", tmp_path / "run")


def evaluate(run: Path, root: Path, name: str, *more: str) -> int:
    return main(
        [
            "evaluate",
            f"run={run}",
            "data=folder",
            f"data.root={root}",
            f"hydra.run.dir={run / 'evaluations' / name}",
            *more,
        ]
    )


def test_a_run_keeps_the_content_of_its_frames_and_of_its_tests(trained: Path) -> None:
    run, data = Run(trained / "run"), trained / "data"
    training = pl.read_parquet(run.folder / "training.parquet")
    files = [path for split in ("train", "val") for path in (data / split).rglob("*.png")]
    assert set(training["path"]) == {str(path.relative_to(data)) for path in files}
    assert run.record()["overlap"] == {"folder": 0}
    results = run.results()
    assert results["overlap"].unique().to_list() == [0]
    assert results["pixels"].str.contains(r"^[0-9a-f]{12}$").all()
    assert results["pixels"].n_unique() == 1
    predictions = pl.read_parquet(run.folder / "predictions" / "folder.parquet")
    assert predictions.schema["content"] == pl.UInt64
    assert not set(predictions["content"]) & set(training["content"])
    validation = pl.read_parquet(run.folder / "validation.parquet")
    assert set(validation["content"]) <= set(training["content"])


def test_a_changed_copy_is_told_and_an_equal_one_is_not(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert evaluate(run, data, "1") == 0
    assert "have changed" not in caplog.text
    equal = Run(run / "evaluations" / "1")
    assert equal.record()["pixels"] == {}
    assert equal.results()["pixels"].equals(Run(run).results()["pixels"])

    for name in ("test/swap/test0/1.png", "test/real/test1/0.png"):
        write_image(data / name, 1234)
    assert evaluate(run, data, "2") == 0
    said = "2 of the 8 test files of folder have changed since the test in "
    assert f"{said}{run}, test/real/test1/0.png for one" in caplog.text
    changed = Run(run / "evaluations" / "2")
    assert changed.record()["pixels"]["folder"] == {
        "since": str(run),
        "changed": 2,
        "frames": 8,
        "first": "test/real/test1/0.png",
    }
    assert changed.results().height == Run(run).results().height
    assert changed.results()["stamp"].equals(equal.results()["stamp"])
    assert not set(changed.results()["pixels"]) & set(Run(run).results()["pixels"])
    caplog.clear()
    assert main(["report", f"runs={run}"]) == 0
    assert "(they differ in frames, pixels, videos)" in caplog.text


def test_a_report_marks_results_on_changed_files(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tmp_path / "data" / "test", tmp_path / "other" / "test")
    for name in ("1", "2"):
        write_image(tmp_path / "other" / "test" / "swap" / "test1" / "1.png", int(name) + 500)
        assert evaluate(run, tmp_path / "other", name, "data.name=other") == 0
    capsys.readouterr()
    assert main(["report", f"runs={run}", f"out={tmp_path / 'report'}"]) == 0
    note = "1 of the 8 test files changed since the test in"
    assert note in " ".join(capsys.readouterr().out.split())
    for name in ("results.md", "results.tex", "report.html"):
        assert "1 of the 8 test files changed" in (tmp_path / "report" / name).read_text()


def test_training_frames_under_another_name_are_refused_or_carried(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = (
        "data.name=elsewhere",
        "data.source.layout='{domain}/{video}'",
        "data.source.split=test",
    )
    own = tmp_path / "data" / "train"
    assert evaluate(run, own, "1", *elsewhere) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "8 of the 8 test frames of elsewhere are training or validation frames of the run" in said
    )
    assert "(train/real/train0/0.png in training) for one" in said
    assert "overlap=allow" in said
    assert not (run / "evaluations" / "1").exists()
    assert evaluate(run, own, "1", *elsewhere, "overlap=maybe") == 2
    assert "overlap=maybe" in capsys.readouterr().err

    assert evaluate(run, own, "1", *elsewhere, "overlap=allow") == 0
    tested = Run(run / "evaluations" / "1")
    assert tested.record()["overlap"] == {"elsewhere": 8}
    assert {facts["overlap"] for facts in tested.record()["stamps"].values()} == {8}
    assert tested.results()["overlap"].unique().to_list() == [8]
    assert "overlap" not in json.dumps(Run(run).record()["stamps"])
    capsys.readouterr()
    assert main(["report", f"runs={run}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 of these test frames are training frames (overlap=allow)" in printed


def test_a_run_without_a_record_of_its_frames_says_that_it_cannot_know(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "training.parquet").unlink()
    caplog.set_level("INFO")
    assert evaluate(run, tmp_path / "data", "1") == 0
    assert "training.parquet is missing: the test frames cannot be compared" in caplog.text
    assert "is not known: the training has no record of its frames" in caplog.text
    tested = Run(run / "evaluations" / "1")
    assert tested.record()["overlap"] == {"folder": None}
    assert tested.results()["overlap"].null_count() == tested.results().height
    (run / "training.parquet").write_bytes(b"damaged")
    sealed(Run(run))
    assert evaluate(run, tmp_path / "data", "2") == 2
    assert not (run / "evaluations" / "2").exists()


def test_a_table_whose_test_rows_link_to_training_files_is_refused_before_training(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "linked").symlink_to(tree / "train", target_is_directory=True)
    rows = ["path,label,dataset,domain,video,index,split"]
    for split, dataset, place in (
        ("train", "a", "train"),
        ("val", "a", "val"),
        ("test", "unseen", "linked"),
    ):
        rows += [
            f"{place}/{domain}/{name}/{frame}.png,{int(domain != 'real')},{dataset},{domain},"
            f"{dataset}/{domain}/{split}/{name},{frame},{split}"
            for domain in ("real", "swap")
            for name in (f"{'train' if place == 'linked' else place}{video}" for video in (0, 1))
            for frame in (0, 1)
        ]
    (tree / "table.csv").write_text("\n".join(rows) + "\n")
    command = ["train", "data=table", f"data.root={tree}", "data.source.file=table.csv"]
    command += ["data.train=[a]", "data.test=[unseen]", *SMALL]
    assert main([*command, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "8 of the 8 test frames of unseen are training or validation frames" in said
    assert "(train/real/train0/0.png in training) for one" in said
    assert not (tmp_path / "run").exists()
    assert main([*command, "overlap=allow", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert Run(tmp_path / "run").results()["overlap"].unique().to_list() == [8]


def test_a_run_that_was_shared_with_the_files_of_its_detector_alone_is_tested(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("config.yaml", "adapter.safetensors", "adapter.json", "run.json"):
        shutil.copyfile(run / name, shared / name)
    assert evaluate(shared, tmp_path / "data", "1") == 0
    assert "validation.parquet is missing: there are no metrics at the thresholds" in caplog.text
    tested = Run(shared / "evaluations" / "1")
    assert tested.record()["thresholds"] is None
    whole = Run(run).results()
    assert set(whole["metric"]) - set(tested.results()["metric"]) == {"acc_val", "bacc_val"}
    (shared / "adapter.json").unlink()
    assert evaluate(shared, tmp_path / "data", "2") == 2


def test_a_check_that_is_skipped_reads_nothing_and_claims_nothing(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    own = tmp_path / "data" / "train" / "swap" / "train1" / "1.png"
    shutil.copyfile(own, tmp_path / "data" / "test" / "real" / "test0" / "1.png")
    assert evaluate(run, tmp_path / "data", "0") == 2
    seen = reads(monkeypatch)
    assert evaluate(run, tmp_path / "data", "1", "overlap=skip") == 0
    command = ["train", "data=folder", f"data.root={tmp_path / 'data'}", *SMALL, "overlap=skip"]
    assert main([*command, f"hydra.run.dir={tmp_path / 'unread'}"]) == 0
    assert seen == []
    assert caplog.text.count("is not known: overlap=skip") == 2
    assert not (tmp_path / "unread" / "training.parquet").exists()
    for tested in (Run(run / "evaluations" / "1"), Run(tmp_path / "unread")):
        assert tested.record()["overlap"] == {"folder": None}
        assert tested.results()["overlap"].null_count() == tested.results().height


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that are read from now on to compare files; loaders are not counted."""
    seen: list[str] = []
    read = content_files.read_bytes

    def noted(place: str) -> bytes:
        seen.append(place)
        return read(place)

    monkeypatch.setattr(content_files, "read_bytes", noted)
    return seen


def test_a_resumed_training_must_find_the_files_that_it_began_with(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "results.csv").unlink()  # as if the test had been interrupted
    Run(run).write_record(Run(run).record())
    record = (run / "training.parquet").read_bytes()
    name = "train/swap/train1/1.png"
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(trained / "data"), str(tmp_path / "data")))
    kept = (tmp_path / "data" / name).read_bytes()
    write_image(tmp_path / "data" / name, 1234)
    assert main(["train", f"resume={run}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"1 of the 16 training and validation files of {run} are not those" in said
    assert f"{name} for one; put them back, or train anew in another folder" in said
    assert (run / "training.parquet").read_bytes() == record
    (tmp_path / "data" / name).write_bytes(kept)
    assert main(["train", f"resume={run}"]) == 0
    assert (run / "training.parquet").read_bytes() == record
    assert Run(run).record()["overlap"] == {"folder": 0}


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_refuse_what_one_refuses(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "data", tmp_path / "data")
    command = ["train", "data=folder", "data.root=data", *SMALL, "trainer=ddp", "trainer.devices=2"]
    command += ["trainer.accelerator=cpu", "data.videos=4", "data.frames=4", "trainer.max_epochs=2"]
    done = fmsd_command(*command, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, one = Run(tmp_path / "run"), Run(trained / "run")
    for name in ("training.parquet", "validation.parquet", "predictions/folder.parquet"):
        tables = [pl.read_parquet(own.folder / name).sort("path") for own in (run, one)]
        assert tables[0]["content"].equals(tables[1]["content"])
    assert run.results()["pixels"].equals(one.results()["pixels"])
    own = tmp_path / "data" / "val" / "swap" / "val1" / "0.png"
    shutil.copyfile(own, tmp_path / "data" / "test" / "real" / "test0" / "1.png")
    done = fmsd_command(*command, "hydra.run.dir=leak", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("1 of the 8 test frames of folder are training or validation") == 1
    assert not (tmp_path / "leak").exists()
