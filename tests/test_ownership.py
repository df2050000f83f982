"""No verb writes over a file that it did not write."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch

from fmsd.cli.main import main
from fmsd.cli.sweep import begin_sweep
from fmsd.data import pack
from fmsd.data.prepared_folder import prepared_manifest
from fmsd.errors import InputError
from fmsd.ownership import check_replaceable, path_below
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import PARTS, Run, owning_run
from tests.conftest import grow_tree
from tests.runs import finished, sealed

NOTE = "years of work"


def snapshot(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("ownership")
    grow_tree(folder / "tree")
    words = ["data=folder", f"data.root={folder / 'tree'}", "trainer=smoke", "backbone=demo_vit"]
    assert main(["train", "method=probe", *words, f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder


def refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_path_below_a_folder_is_below_it(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "inner").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "same").symlink_to(tmp_path / "in")
    for home in (tmp_path / "in", tmp_path / "same"):
        for name in ("a", "a/b", "new/deep", "inner/b"):
            assert path_below(home, name) == home / name
        for name in (
            "..",
            "../out",
            "link",
            "link/a",
            "a/../../out",
            str(tmp_path / "out"),
            ".",
            "",
        ):
            with pytest.raises(InputError, match="leads out of"):
                path_below(home, name)


def test_a_mark_tells_whose_files_these_are(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]

    def check() -> None:
        check_replaceable(
            files, files[0], lambda path: "ours" in path.read_text(), "fmsd x", "give another"
        )

    check()
    files[1].write_text(NOTE)
    with pytest.raises(
        InputError, match=r"b\.txt was not written by fmsd x and would be lost; give another"
    ):
        check()
    files[0].write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"a\.txt was not written"):
        check()
    files[0].write_text("ours")
    check()
    files[0].unlink()
    files[0].symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.txt was not written"):
        check()


# ---- folders of runs


@pytest.mark.parametrize("part", [part for part in PARTS if part != "config.yaml"])
def test_a_run_begins_in_no_folder_that_holds_such_a_part_of_somebody_else_s(
    tmp_path: Path, part: str
) -> None:
    note = tmp_path / part if "." in part else tmp_path / part / "note.txt"
    note.parent.mkdir(exist_ok=True)
    note.write_text(NOTE)
    before = snapshot(tmp_path)
    with (
        pytest.raises(InputError, match=r"belongs to no run and would be lost; choose another"),
        claim_run(Run(tmp_path), "a: 1"),
    ):
        pytest.fail("it began")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("text", ["model: mine\n", "- a\n- b\n", "{ no yaml", "just text"])
def test_a_configuration_of_another_program_stops_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    for resumable in (False, True):
        with (
            pytest.raises(InputError, match="already holds a run"),
            claim_run(Run(tmp_path), "a: 1", resumable),
        ):
            pytest.fail("it began")
    assert snapshot(tmp_path) == {"config.yaml": text.encode()}


def test_what_lies_beside_a_run_survives_its_failure_and_its_resumption(tmp_path: Path) -> None:
    notes = (
        ".a.txt.1.partial",
        "mine/.b.partial",
        "thesis.tex",
        "error.txt",
        "evaluations/now/.results.csv.2.partial",
    )
    for name in notes:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(NOTE)

    def failing() -> None:
        with claim_run(Run(tmp_path), "a: 1", resumable=True):
            (tmp_path / "predictions").mkdir()
            raise InputError("no", "no")

    with pytest.raises(InputError, match="no"):
        failing()
    assert set(snapshot(tmp_path)) == set(notes)
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "predictions").mkdir()
    for name in (".run.json.3.partial", "predictions/.a.parquet.4.partial"):
        (tmp_path / name).write_text("half")
    with claim_run(Run(tmp_path), "a: 1", resumable=True):
        assert set(snapshot(tmp_path)) == {*notes, "config.yaml"} - {
            "error.txt"
        }  # which such a run has written


def test_training_begins_in_no_folder_of_results(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text(NOTE)
    words = [
        "data=folder",
        f"data.root={place / 'tree'}",
        "trainer=smoke",
        "backbone=demo_vit",
        f"hydra.run.dir={tmp_path / 'mine'}",
    ]
    refused(
        ["train", "method=probe", *words],
        "mine/results.csv belongs to no run and would be lost",
        capsys,
    )
    refused(
        ["evaluate", f"run={place / 'run'}", words[-1]],
        "mine/results.csv belongs to no run and would be lost",
        capsys,
    )
    assert snapshot(tmp_path) == {"mine/results.csv": NOTE.encode()}


def test_an_empty_folder_that_was_there_stays(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    words = ["data=folder", f"data.root={tmp_path / 'none'}", "trainer=smoke", "backbone=demo_vit"]
    refused(
        ["train", "method=probe", *words, f"hydra.run.dir={tmp_path / 'mine'}"],
        "There is no folder",
        capsys,
    )
    refused(
        ["train", "method=probe", *words, f"hydra.run.dir={tmp_path / 'new'}"],
        "There is no folder",
        capsys,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_sweep_begins_in_no_folder_of_another_program_s(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(NOTE)
    with pytest.raises(InputError, match=r"multirun\.yaml is of another sweep and would be lost"):
        begin_sweep(tmp_path, tmp_path / ".jobs" / "1", {"b": ["1"]}, 1)
    assert snapshot(tmp_path) == {"multirun.yaml": NOTE.encode()}


# ---- files that are named


def test_fold_replaces_only_what_fold_wrote(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, ask = place / "run", tmp_path / "model.safetensors", ["fold", f"run={place / 'run'}"]
    assert main([*ask, f"out={out}"]) == 0
    folded = safetensors.torch.load_file(out)
    assert main([*ask, f"out={out}"]) == 0
    again = safetensors.torch.load_file(out)
    assert again.keys() == folded.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in folded.items())
    before = snapshot(run)
    for name in (
        "adapter.safetensors",
        "checkpoints/model.safetensors",
        "predictions/model.safetensors",
    ):
        refused([*ask, f"out={run / name}"], f"lies among the files of the run in {run}", capsys)
    assert snapshot(run) == before
    (tmp_path / "link").symlink_to(run)
    assert owning_run(tmp_path / "link" / "adapter.safetensors") == run.resolve()
    assert owning_run(run / "folded.safetensors") is None
    safetensors.torch.save_file(
        {"weight": torch.zeros(2)}, tmp_path / "mine.safetensors", {"mean": "[0.5]"}
    )
    (tmp_path / "text.safetensors").write_text(NOTE)
    shutil.copy(run / "adapter.safetensors", tmp_path / "adapter.safetensors")
    before = snapshot(tmp_path)
    for name in ("mine", "text", "adapter"):
        refused(
            [*ask, f"out={tmp_path / name}.safetensors"],
            f"{name}.safetensors was not written by fmsd fold and would be lost",
            capsys,
        )
    assert snapshot(tmp_path) == before


def test_index_replaces_only_a_manifest(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["index", "data=folder", f"data.root={place / 'tree'}"]
    for _ in range(2):
        assert main([*ask, f"out={tmp_path / 'manifest.parquet'}"]) == 0
    manifest = pl.read_parquet(tmp_path / "manifest.parquet")
    manifest.with_columns(pl.col("label", "index").cast(pl.Int64)).write_parquet(
        tmp_path / "table.parquet"
    )
    shutil.copy(place / "run" / "predictions" / "folder.parquet", tmp_path / "predictions.parquet")
    (tmp_path / "text.parquet").write_text(NOTE)
    before = snapshot(tmp_path)
    for name in ("table", "predictions", "text"):
        refused(
            [*ask, f"out={tmp_path / name}.parquet"],
            f"{name}.parquet was not written by fmsd index and would be lost",
            capsys,
        )
    assert snapshot(tmp_path) == before


def test_doctor_replaces_only_a_report_of_its_own(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["doctor", "data=folder", f"data.root={place / 'tree'}", "workers=0"]
    for _ in range(2):
        main([*ask, f"out={tmp_path / 'report.json'}"])
    assert (tmp_path / "report.json").is_file()
    for text in ('{"findings": "of my thesis"}', '["findings"]', "findings"):
        (tmp_path / "mine.json").write_text(text)
        refused(
            [*ask, f"out={tmp_path / 'mine.json'}"],
            "mine.json was not written by fmsd doctor and would be lost",
            capsys,
        )
        assert (tmp_path / "mine.json").read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("dataset", ("results.csv", "results.md", "report.html")),
        ("domain", ("domains.csv", "domains.png")),
    ],
)
def test_report_replaces_only_its_own_files(
    tmp_path: Path, by: str, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "runs" / "a", ["method=probe"], 0)
    ask = ["report", f"runs={tmp_path / 'runs'}", f"by={by}", "resamples=10"]
    for _ in range(2):
        assert main([*ask, f"out={tmp_path / 'out'}"]) == 0
    for name in names:
        mine = tmp_path / f"mine of {name}"
        mine.mkdir()
        (mine / name).write_text(NOTE)
        refused(
            [*ask, f"out='{mine}'"],
            f"{name} was not written by fmsd report and would be lost",
            capsys,
        )
        assert snapshot(mine) == {name: NOTE.encode()}
    (tmp_path / "runs" / "a" / "run.json").rename(tmp_path / "run.json")
    finished(tmp_path / "runs" / "b", ["method=probe"], 0)
    if by == "dataset":  # what is left of a run is no report
        refused(
            [*ask, f"out={tmp_path / 'runs' / 'a'}"],
            "results.csv was not written by fmsd report",
            capsys,
        )


def test_explain_replaces_only_its_own_files(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["explain", f"run={place / 'run'}", "images=1", "frames=8"]
    for _ in range(2):
        assert main([*ask, f"out={tmp_path / 'out'}"]) == 0
    for name in ("heatmaps.png", "features.png", "features.parquet"):
        mine = tmp_path / name.replace(".", "_")
        mine.mkdir()
        (mine / name).write_text(NOTE)
        refused(
            [*ask, f"out={mine}"],
            f"{name} was not written by fmsd explain and would be lost",
            capsys,
        )
        assert snapshot(mine) == {name: NOTE.encode()}


# ---- names in the folders of others


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b"])
def test_a_run_whose_results_name_a_dataset_that_leads_elsewhere_is_refused(
    place: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "run"
    shutil.copytree(place / "run", run)
    table = pl.read_csv(run / "results.csv", infer_schema=False)
    table.with_columns(dataset=pl.lit(name)).write_csv(run / "results.csv")
    sealed(Run(run))
    refused(
        ["report", f"runs={run.parent}"], f"The dataset in {run / 'results.csv'} '{name}'", capsys
    )
    refused(["evaluate", f"run={run}"], f"The dataset in {run / 'results.csv'} '{name}'", capsys)
    assert not (run / "evaluations").exists()


def test_a_pack_reads_nothing_but_its_own_tars(place: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert main(["pack", "data=folder", f"data.root={place / 'tree'}", f"out={packed}"]) == 0
    places = pl.read_parquet(packed / pack.PLACES)
    (tmp_path / "x.tar").write_bytes((packed / "00000.tar").read_bytes())
    for tar in ("../x.tar", str(tmp_path / "x.tar"), "..", ""):
        places.with_columns(
            tar=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(tar)).otherwise("tar")
        ).write_parquet(packed / pack.PLACES)
        manifest = prepared_manifest(packed)
        assert manifest is not None
        with pytest.raises(InputError, match=r"The tar in .*pack\.parquet"):
            manifest.files()
