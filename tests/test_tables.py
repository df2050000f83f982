"""A path names one file: `run[1]` is not `run1`, and `run*` is not all of them, for every verb that
reads a table.
"""

import ast
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from fmsd.cli.main import main
from fmsd.data import manifest as manifests
from fmsd.data import prepared_folder
from fmsd.data.manifest import Manifest
from fmsd.metrics.table import compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.quoting import hydra_quote
from fmsd.runs.folder import Run
from fmsd.tables import read_csv, read_parquet
from fmsd.tasks.report import report
from tests.conftest import ROOT, grow_tree
from tests.runs import finished, frames, sealed

NAMES = ("run[1]", "run1", "run2", "run*", "run?", "~", "[ab]", "a")
"""Folders side by side; read as patterns, most of them fit others."""


def test_a_table_is_read_from_the_path_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(NAMES):
        Path(name).mkdir()
        table = pl.DataFrame({"value": [place], "name": [name]})
        table.write_csv(tmp_path / name / "a.csv")
        with (tmp_path / name / "a.parquet").open("wb") as file:
            table.write_parquet(file)
    for place, name in enumerate(NAMES):
        for path in (Path(name), tmp_path / name):
            assert (
                read_parquet(path / "a.parquet").rows()
                == read_csv(path / "a.csv").rows()
                == [(place, name)]
            )
            assert read_parquet(path / "a.parquet", ["value"]).rows() == [(place,)]
    for read, kind in ((read_parquet, "parquet"), (read_csv, "csv")):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / f"*.{kind}")
        (tmp_path / "nothing").write_bytes(b"")
        with pytest.raises(pl.exceptions.PolarsError):
            read(tmp_path / "nothing")


SOURCES = sorted(
    path
    for folder in ("fmsd", "experiments", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)


def test_no_other_file_has_polars_open_a_path() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [node.attr]
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("pl", "polars")
                else []
            )
            names += (
                [alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom) and node.module == "polars"
                else []
            )
            found += [
                (path.relative_to(ROOT).as_posix(), name)
                for name in names
                if name.startswith(("read_", "scan_"))
            ]
    assert {path for path, _ in found} == {"fmsd/tables.py"}


@pytest.mark.slow
def test_report_shows_the_numbers_of_the_named_folder(tmp_path: Path) -> None:
    for place, name in enumerate(("run[1]", "run1", "run*", "run2")):
        finished(tmp_path / name / "job", ["data=ff"], place, datasets=("ff",), shift=place / 2)
        (tmp_path / name / "job" / "logs").mkdir()
        (tmp_path / name / "job" / "logs" / "metrics.csv").write_text(
            "step,train/loss\n0,0.5\n10,0.4\n"
        )
    for place, name in enumerate(("run[1]", "run1", "run*", "run2")):
        expected = compute_results(frames("ff", (), place, place / 2), "iid")
        tidy = report(tmp_path / name, out=tmp_path / f"out {name}", resamples=20)
        assert_frame_equal(
            tidy.select("level", "metric", "value"), expected.select("level", "metric", "value")
        )
        low, value, high = (
            tidy.filter(metric="auc", level="video").select("low", "value", "high").row(0)
        )
        assert low <= value <= high
        assert f"{value:.3f}" in (tmp_path / f"out {name}" / "results.md").read_text()
        forgeries = report(tmp_path / name, by="domain")
        assert set(forgeries["seed"]) == {place}


@pytest.mark.slow
def test_manifests_and_tables_are_those_of_the_named_file(tmp_path: Path) -> None:
    for place, name in enumerate(("m[1]", "m1", "m*")):
        root = grow_tree(tmp_path / f"tree{name}", videos=place + 1)
        source = ["data=folder", f"data.root={hydra_quote(root)}"]
        assert main(["index", *source, f"out={hydra_quote(tmp_path / f'{name}.parquet')}"]) == 0
        manifests.read_manifest(tmp_path / f"{name}.parquet", root).table.write_csv(
            tmp_path / f"{name}.csv"
        )
    for place, name in enumerate(("m[1]", "m1", "m*")):
        root = tmp_path / f"tree{name}"
        assert (
            len(manifests.read_manifest(tmp_path / f"{name}.parquet", root))
            == 3 * 2 * (place + 1) * 2
        )
        for kind in ("parquet", "csv"):
            out = tmp_path / "out.parquet"
            out.unlink(missing_ok=True)
            table = f"data.source.file={hydra_quote(tmp_path / f'{name}.{kind}')}"
            assert (
                main(["index", "data=table", f"data.root={hydra_quote(root)}", table, f"out={out}"])
                == 0
            )
            assert len(pl.read_parquet(out)) == 3 * 2 * (place + 1) * 2
        packed = tmp_path / f"packed {name}"
        assert (
            main(
                [
                    "pack",
                    "data=folder",
                    f"data.root={hydra_quote(root)}",
                    f"data.manifest={hydra_quote(tmp_path / f'{name}.parquet')}",
                    f"out={hydra_quote(packed)}",
                ]
            )
            == 0
        )
        packed.rename(tmp_path / f"p{name}")
    for name in ("m[1]", "m1", "m*"):  # each pack has its own places, all of which are found
        found = prepared_folder.prepared_manifest(tmp_path / f"p{name}")
        assert isinstance(found, Manifest)
        assert all(f"p{name}/00000.tar#" in file for file in found.files())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings `run[1]` and `run1`, and `run*`, whose name is a pattern of both."""
    folder = tmp_path_factory.mktemp("tables")
    data = [
        "data=folder",
        f"data.root={hydra_quote(grow_tree(folder / 'data[1]'))}",
        "trainer=smoke",
        "backbone=demo_vit",
        "method=norm",
    ]
    for seed, name in enumerate(("run[1]", "run1")):
        assert (
            main(
                [
                    "train",
                    *data,
                    "optimizer.lr=1e-2",
                    f"seed={seed}",
                    f"hydra.run.dir={hydra_quote(folder / name)}",
                ]
            )
            == 0
        )
    shutil.copytree(folder / "run1", folder / "run*")
    # each folder has scores of its own, so that thresholds identify their folder
    for shift, name in enumerate(("run[1]", "run1", "run*"), 1):
        path = folder / name / "validation.parquet"
        table = read_parquet(path).with_columns(pl.col("logit") * 0.1 + shift)
        with path.open("wb") as file:
            table.write_parquet(file)
        sealed(Run(folder / name))
    return folder


@pytest.mark.parametrize("name", ["run[1]", "run1", "run*"])
def test_evaluate_takes_the_thresholds_of_the_named_run(
    place: Path, name: str, tmp_path: Path
) -> None:
    assert (
        main(
            ["evaluate", f"run={hydra_quote(place / name)}", f"hydra.run.dir={tmp_path / 'again'}"]
        )
        == 0
    )
    record = json.loads((tmp_path / "again" / "run.json").read_text())
    with (place / name / "validation.parquet").open("rb") as file:
        assert record["thresholds"] == best_thresholds(pl.read_parquet(file))
    values = [
        Run(folder).results().filter(metric="auc")["value"].to_list()
        for folder in (place / name, tmp_path / "again")
    ]
    assert values[0] == values[1]


@pytest.mark.slow
def test_fold_merge_and_explain_take_the_named_run(place: Path, tmp_path: Path) -> None:
    plain = {}
    for name in ("run[1]", "run1"):
        assert (
            main(
                [
                    "fold",
                    f"run={hydra_quote(place / name)}",
                    f"out={hydra_quote(tmp_path / f'{name}.safetensors')}",
                ]
            )
            == 0
        )
        plain[name] = load_file(tmp_path / f"{name}.safetensors")
    assert any((plain["run[1]"][key] != plain["run1"][key]).any() for key in plain["run1"])
    experts = f"experts=[{hydra_quote(place / 'run[1]')},{hydra_quote(place / 'run1')}]"
    assert (
        main(["merge", "merger=average", experts, f"out={hydra_quote(tmp_path / 'merged[1]')}"])
        == 0
    )
    detectors = (
        read_csv(tmp_path / "merged[1]" / "domains.csv")
        .filter(level="video")
        .select("detector", "value")
        .rows()
    )
    for name, (_, value) in zip(("run[1]", "run1"), detectors[:2], strict=True):
        assert (
            value == Run(place / name).results().filter(level="video", metric="auc")["value"].item()
        )
    assert (
        main(
            [
                "explain",
                f"run={hydra_quote(place / 'run[1]')}",
                "images=1",
                "frames=4",
                f"out={hydra_quote(tmp_path / 'seen[1]')}",
            ]
        )
        == 0
    )
    points, own = (
        read_parquet(tmp_path / "seen[1]" / "features.parquet"),
        next((place / "run[1]" / "predictions").iterdir()),
    )
    expected = dict(read_parquet(own).select("path", "logit").rows())
    assert {path: pytest.approx(expected[path], abs=1e-4) for path in points["path"]} == dict(
        points.select("path", "logit").rows()
    )
