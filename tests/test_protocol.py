"""The rules of a number: which frames of a video, and what one video is; ours, and the popular
benchmark's for comparison.
"""

from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.entries import from_entries
from fmsd.data.manifest import frame_positions
from fmsd.errors import InputError
from fmsd.metrics.table import compute_results
from fmsd.runs.folder import Run
from tests.conftest import grow_tree, write_image
from tests.test_engine import module
from tests.test_manifest import frames


def test_the_first_frames_of_each_video_or_evenly_spread_ones() -> None:
    manifest = from_entries(frames(length=9), Path("/data"))
    for sampling, kept in (("first", [0, 1, 2]), ("spread", [0, 4, 8])):
        for (_,), rows in manifest.sample_frames(3, sampling).table.group_by("video"):
            assert rows["index"].sort().to_list() == kept
    assert len(manifest.sample_frames(20, "first")) == len(manifest)


def ffpp() -> pl.DataFrame:
    """The test split of FaceForensics++ under a detector that is blind to one of the four
    forgeries: it scores it below the real videos.
    """
    rows = [("ff++", 0, f"ff++/real/c23/{video:03d}", "real", -1.0) for video in range(140)]
    for domain in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
        logit = -2.0 if domain == "NeuralTextures" else 6.0
        rows += [
            ("ff++", 1, f"ff++/{domain}/c23/{video:03d}_{139 - video:03d}", domain, logit)
            for video in range(140)
        ]
    return pl.DataFrame(rows, schema=["dataset", "label", "video", "domain", "logit"], orient="row")


def test_training_videos_have_a_number_of_frames_of_their_own(tmp_path: Path) -> None:
    """Those held out of them choose the weights, so they have as many frames as the tests."""
    for split in ("train", "test"):
        for domain in ("real", "swap"):
            for video in range(4):
                for frame in range(6):
                    write_image(
                        tmp_path / split / domain / f"{split}{video}" / f"{frame}.png", frame
                    )

    def indices(**numbers: int | None) -> dict[str, set[tuple[int, ...]]]:
        data = module(tmp_path, val_fraction=0.25, **numbers)
        tables = {
            "train": data.splits.train,
            "val": data.splits.validation,
            "test": data.tests["mine"],
        }
        return {
            name: {
                tuple(own) for own in part.table.group_by("video").agg("index")["index"].to_list()
            }
            for name, part in tables.items()
        }

    whole, three, two = (tuple(frame_positions(6, count, "spread")) for count in (None, 3, 2))
    assert indices() == {"train": {whole}, "val": {whole}, "test": {whole}}
    assert (
        indices(frames=3)
        == indices(frames=3, train_frames=None)
        == {"train": {three}, "val": {three}, "test": {three}}
    )
    assert indices(frames=3, train_frames=2) == {"train": {two}, "val": {three}, "test": {three}}
    assert indices(frames=2, train_frames=3) == {"train": {three}, "val": {two}, "test": {two}}
    assert indices(train_frames=2) == {"train": {two}, "val": {whole}, "test": {whole}}
    with pytest.raises(InputError, match=r"data\.train_frames=0 is out of range"):
        indices(train_frames=0)


def test_all_700_test_videos_are_kept_unless_the_popular_grouping_is_asked_for() -> None:
    ours, theirs = (
        compute_results(ffpp(), "iid", *protocol)
        .filter(metric="auc", level="video")
        .row(0, named=True)
        for protocol in ((), ("dfb_compat", "folder"))
    )
    assert (ours["n_videos"], ours["value"], ours["protocol"]) == (700, 0.75, "fmsd")
    assert (theirs["n_videos"], theirs["value"], theirs["protocol"]) == (280, 1.0, "dfb_compat")
    assert ours["n_frames"] == theirs["n_frames"] == 700


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    tree = grow_tree(folder / "data", domains=("real", "one", "two"))
    for path in [*tree.glob("*/one/*"), *tree.glob("*/two/*")]:
        path.rename(path.with_name(f"{path.name}_fake"))
    data = [
        "data=folder",
        f"data.root={tree}",
        "trainer=smoke",
        "data.frames=1",
        "backbone=demo_vit",
    ]
    assert main(["train", "method=probe", *data, f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_an_evaluation_by_the_popular_protocol_says_so_in_every_row(run: Path) -> None:
    assert set(Run(run).results()["protocol"]) == {"fmsd"}
    assert (
        main(
            [
                "evaluate",
                f"run={run}",
                "protocol=dfb_compat",
                "data.frames=1",
                f"hydra.run.dir={run.parent / 'compat'}",
            ]
        )
        == 0
    )
    table = Run(run.parent / "compat").results()
    assert set(table["protocol"]) == {"dfb_compat"}
    (path,) = (run.parent / "compat" / "predictions").iterdir()
    scored = pl.read_parquet(path)
    assert set(scored["index"]) == {0}
    assert (
        table.filter(level="video")["n_videos"].unique().to_list()
        == [scored["video"].str.split("/").list.last().n_unique()]
        == [4]
    )
    assert scored["video"].n_unique() == 6


def test_names_that_real_and_fake_videos_share_leave_nothing_to_rank(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = grow_tree(tmp_path / "shared")
    words = [
        "data=folder",
        f"data.root={shared}",
        "protocol=dfb_compat",
        f"hydra.run.dir={tmp_path / 'out'}",
    ]
    assert main(["evaluate", f"run={run}", *words]) == 2
    assert "Every fake video of folder bears the name of a real one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_rules_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, message in (
        ("data.sampling=random", "data.sampling=random is unknown; choose one of spread, first"),
        ("data.naming=path", "data.naming=path is unknown; choose one of id, folder"),
        ("protocol=dfb", "There is no protocol=dfb; choose one of dfb_compat, fmsd"),
        ("protocol=null", "protocol=null names no choice of its group; leave it out, or name one"),
    ):
        assert (
            main(
                [
                    "train",
                    "data=folder",
                    f"data.root={tmp_path}",
                    word,
                    f"hydra.run.dir={tmp_path / 'run'}",
                ]
            )
            == 2
        )
        assert message in capsys.readouterr().err
