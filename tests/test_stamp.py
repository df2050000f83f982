"""The protocol stamp: equal exactly where numbers may stand in one column."""

from pathlib import Path
from typing import Any

import pytest

from fmsd.cli.main import main
from fmsd.engine.merging import merged_origin
from fmsd.engine.stamp import protocol_stamps, training_facts, with_stamps
from fmsd.metrics.table import compute_results
from fmsd.runs.folder import Run
from tests.conftest import grow_tree
from tests.foreign_runs import RECORD
from tests.test_engine import module


def marks(root: Path, selection: str = "iid", **changes: Any) -> set[str]:
    data = module(root, **changes)
    return set(protocol_stamps(data, training_facts(data, selection), {"mine": 0}))


def test_a_stamp_is_that_of_the_protocol_and_of_nothing_else(tree: Path, tmp_path: Path) -> None:
    plain = marks(tree)
    assert len(plain) == 2  # frames, videos
    moved = tree.rename(tmp_path / "elsewhere")
    for same in (
        {},
        {"seed": 3},
        {"train_frames": None},
        {"batch_size": 2},
        {"workers": 1},
        {"batches": "balanced"},
    ):
        assert marks(moved, **same) == plain
    others: list[dict[str, Any]] = [
        *(
            {"frames": 1},
            {"videos": 1},
            {"sampling": "first"},
            {"video_score": "max"},
            {"augment": "light"},
        ),
        *(
            {"size": 48},
            {"protocol": "mine"},
            {"selection": "last"},
            {"train_frames": 1},
            {"train_frames": 7},
        ),
    ]
    found = [frozenset(marks(moved, **other)) for other in others]
    assert len(set(found)) == len(others)
    assert all(plain.isdisjoint(own) for own in found)
    next(moved.glob("test/**/*.png")).unlink()
    assert marks(moved).isdisjoint(plain)


@pytest.mark.slow
def test_every_row_of_a_result_carries_the_stamp_of_its_dataset_and_level(tmp_path: Path) -> None:
    tree, run = grow_tree(tmp_path / "tree"), tmp_path / "run"
    words = ["data=folder", f"data.root={tree}", "trainer=smoke", "backbone=demo_vit"]
    assert main(["train", "method=probe", *words, f"hydra.run.dir={run}"]) == 0
    table, record = Run(run).results(), Run(run).record()
    for (level, stamp), rows in table.group_by("level", "stamp"):
        assert (record["stamps"][stamp]["level"], record["stamps"][stamp]["dataset"]) == (
            level,
            "folder",
        )
        assert rows["metric"].n_unique() == rows.height > 8
    assert table["stamp"].n_unique() == 2
    assert main(["evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    assert Run(tmp_path / "again").results().equals(table)
    assert (
        main(
            [
                "evaluate",
                f"run={run}",
                "protocol=fmsd",
                "+data.frames=1",
                f"hydra.run.dir={tmp_path / 'fewer'}",
            ]
        )
        == 0
    )
    assert set(Run(tmp_path / "fewer").results()["stamp"]).isdisjoint(table["stamp"])


def test_results_without_facts_have_no_stamp(tree: Path) -> None:
    data = module(tree)
    own = protocol_stamps(data, training_facts(data, "iid"), {"mine": 0})
    predictions = data.tests["mine"].table.with_columns(logit=0.5)
    assert with_stamps(compute_results(predictions, "iid"), own)["stamp"].is_in(list(own)).all()
    assert with_stamps(compute_results(predictions, "iid"), {})["stamp"].is_null().all()


def test_a_merge_rests_on_the_data_of_all_its_experts_whatever_their_order(tmp_path: Path) -> None:
    def expert(
        name: str,
        train: dict[str, str],
        augment: str = "light",
        selection: str = "iid",
        left_out: str | None = None,
        **more: str,
    ) -> Path:
        Run(tmp_path / name).write_record(
            RECORD
            | {
                "origin": {
                    "selection": selection,
                    "augment": augment,
                    "train": train,
                    "left_out": left_out,
                }
                | more
            }
        )
        return tmp_path / name

    a, b, c = (
        expert("a", {"ff": "1"}),
        expert("b", {"celeb": "2"}),
        expert("c", {"ff": "3"}, augment="sbi"),
    )
    assert merged_origin([a, b], "fixed") == merged_origin([b, a], "fixed")
    assert merged_origin([a, b], "fixed") == {
        "selection": "fixed",
        "augment": "light",
        "train": {"celeb": "2", "ff": "1"},
        "left_out": None,
    }
    assert merged_origin([a, c], "fixed") == merged_origin([c, a], "fixed")
    assert (merged_origin([a, c], "fixed")["augment"], merged_origin([a, c], "fixed")["train"]) == (
        "light+sbi",
        {"ff": "1+3"},
    )
    merged = tmp_path / "merged"
    Run(merged).write_record(RECORD | {"origin": merged_origin([a, c], "fixed")})
    assert (
        merged_origin([merged, b], "fixed")["train"] == merged_origin([a, b, c], "fixed")["train"]
    )
    assert merged_origin([a, tmp_path / "weights.pth"], "fixed")["train"] == {
        "ff": "1",
        "unknown": "",
    }
    peeked = expert("peeked", {"ff": "1"}, selection="oracle", left_out="swap")
    assert merged_origin([a, peeked], "search")["selection"] == "search of iid+oracle"
    assert merged_origin([a, peeked], "search")["left_out"] == "swap"
    few, all_ = (
        expert("few", {"ff": "4"}, train_frames="8"),
        expert("all", {"ff": "5"}, train_frames="all"),
    )
    assert [
        merged_origin(experts, "fixed").get("train_frames")
        for experts in ([few, a], [few, few], [all_, few, a])
    ] == ["8", "8", "8+all"]


def test_an_unknown_video_score_is_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "data=folder",
        f"data.root={tree}",
        "trainer=smoke",
        "backbone=demo_vit",
        "data.video_score=best",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    assert main(["train", "method=probe", *words]) == 2
    assert "data.video_score=best" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
