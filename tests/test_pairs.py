"""Batches of pairs: which frames are a pair, their order, and training on them."""

import functools
import logging
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fmsd.data.entries import from_entries
from fmsd.data.frame import REAL, Entry, Frame, video_id
from fmsd.data.loading.pairs import DomainPairs, PairRows, Pairs, match_frames
from fmsd.data.loading.sampler import EndlessBatches, Place, ProcessBatches
from fmsd.data.sources import folder
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from tests.conftest import SPLITS, grow_tree
from tests.test_engine import module
from tests.test_resume import refused, start
from tests.test_sampler import epochs
from tests.test_wrapper_training import IDS, train


def frames(seed: int, videos: int = 12) -> pl.DataFrame:
    """Real videos with some of their frames, fakes of two domains of most of them, and fakes whose
    real video is unknown or not there; in a random order.
    """
    rng = np.random.default_rng(seed)

    def indices() -> list[int]:
        return rng.choice(30, rng.integers(1, 9), replace=False).tolist()

    rows = [
        (0, REAL, f"d/real/{video}", index, "") for video in range(videos) for index in indices()
    ]
    for number, domain in enumerate(("blend", "swap")):
        for video in range(videos - 3 * number):
            pair = {0: "d/real/absent", 1: ""}.get(video, f"d/real/{video}")
            rows += [(1, domain, f"d/{domain}/{video}", index, pair) for index in indices()]
    table = pl.DataFrame(
        rows, schema=["label", "domain", "video", "index", "pair"], orient="row"
    ).cast({"index": pl.Int32})
    return table.sample(fraction=1, shuffle=True, seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_fake_is_paired_with_the_nearest_frame_of_its_real_video(seed: int) -> None:
    table = frames(seed)
    pairs = match_frames(table)
    real = {video: part for (video,), part in table.filter(label=0).group_by("video")}
    expected = [
        row
        for row, (label, pair) in enumerate(table.select("label", "pair").rows())
        if label and pair in real
    ]
    assert pairs.fake.tolist() == expected
    assert len(expected) > 20
    exact = 0
    for fake, partner in zip(pairs.fake.tolist(), pairs.real.tolist(), strict=True):
        one, other = table.row(fake, named=True), table.row(partner, named=True)
        assert other["video"] == one["pair"]
        assert other["label"] == 0
        distances = [abs(index - one["index"]) for index in real[one["pair"]]["index"]]
        assert abs(other["index"] - one["index"]) == min(distances)
        exact += min(distances) == 0
    assert 0 < exact < len(expected)


def test_a_fake_that_ends_early_is_paired_with_the_beginning_of_its_real_video() -> None:
    indices = {"d/real/1": [0, 90, 180, 270, 360], "d/swap/1": [0, 30, 60, 100]}
    rows = [
        (int("swap" in video), video, index, "d/real/1" if "swap" in video else "")
        for video, listed in indices.items()
        for index in listed
    ]
    table = pl.DataFrame(rows, schema=["label", "video", "index", "pair"], orient="row")
    assert table["index"][match_frames(table).real].to_list() == [0, 0, 90, 90]


def test_a_table_without_pairs_has_none_and_one_real_frame_may_be_in_many() -> None:
    table = frames(0)
    for without in (
        table.with_columns(pair=pl.lit("")),
        table.filter(label=1),
        table.filter(label=0),
        table[:0],
    ):
        assert [len(rows) for rows in match_frames(without)] == [0, 0]
    single = table.filter((pl.col("label") == 1) | pl.col("video").is_first_distinct())
    pairs = match_frames(single)
    assert len(pairs.fake) == len(match_frames(table).fake)
    assert max(Counter(pairs.real.tolist()).values()) > 2


def orders(seed: int = 0, size: int = 8, **changes: Any) -> dict[str, Pairs | DomainPairs]:
    """An order of each kind."""
    table = frames(3)
    pairs = match_frames(table)
    domain = (table["domain"] == "swap").cast(pl.Int64).to_numpy()
    kinds: dict[str, Pairs | DomainPairs] = {
        "pairs": Pairs(pairs, 2 - 2 * table["label"].to_numpy() + domain, size, seed)
    }
    for frequency in ("balanced", "natural"):
        kinds[frequency] = DomainPairs(
            pairs, domain[pairs.fake], ["blend", "swap"], size, frequency, seed
        )
    return kinds


KINDS = ["pairs", "balanced", "natural"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4, 6, 14])
def test_every_fake_stands_beside_its_real_frame(kind: str, size: int) -> None:
    table, order = frames(3), orders(size=size)[kind]
    partner = dict(zip(*(rows.tolist() for rows in order.pairs), strict=True))
    label = table["label"].to_list()
    runs = epochs(ProcessBatches(order), 3)
    for run in runs:
        assert len(run) == order.batches
        for batch in run:
            rows = [place[1] for place in batch]
            assert [label[row] for row in rows] == [1, 0] * (len(rows) // 2)
            assert [partner[row] for row in rows[::2]] == rows[1::2]
        assert {len(batch) for batch in run[:-1]} == {size}
    assert runs[0] != [[(0, *place[1:]) for place in batch] for batch in runs[1]]


def test_an_epoch_of_pairs_has_each_fake_with_a_partner_once() -> None:
    order = orders()["pairs"]
    for run in epochs(ProcessBatches(order), 2):
        shown = [place[1] for batch in run for place in batch[::2]]
        assert sorted(shown) == order.pairs.fake.tolist()
        # a frame's domain is that of shuffled batches
        assert all(place[2] == order.domain[place[1]] for batch in run for place in batch)


@pytest.mark.parametrize("frequency", ["balanced", "natural"])
@pytest.mark.parametrize("size", [4, 6, 14])
def test_every_batch_holds_pairs_of_every_domain(frequency: str, size: int) -> None:
    table, order = frames(3), orders(size=size)[frequency]
    counts = Counter(table["domain"][order.pairs.fake].to_list())
    assert counts["blend"] > 1.2 * counts["swap"]
    taken = Counter[str]()
    for epoch, run in enumerate(epochs(ProcessBatches(order), 2)):
        for batch in run:
            assert len(batch) == size
            domains = [table["domain"][place[1]] for place in batch[::2]]
            given = [place[2] for place in batch]
            assert given[::2] == given[1::2] == [IDS.index(name) for name in domains]
            assert set(domains) == set(IDS)
            if frequency == "balanced":
                few, many = sorted(Counter(domains).values())
                assert many - few <= 1
            taken.update(domains)
        assert isinstance(order, DomainPairs)
        assert epoch or all(
            abs(taken[name] / counts[name] - times) < 0.4
            for name, times in zip(IDS, order.repeats, strict=True)
        )


@pytest.mark.parametrize(("frequency", "share"), [("balanced", [5, 5]), ("natural", [9, 1])])
def test_a_domain_has_its_share_of_every_batch(frequency: str, share: list[int]) -> None:
    fake, domain = np.arange(54), np.repeat([0, 1], [46, 8])
    order = DomainPairs(PairRows(fake, fake + 54), domain, IDS, 20, frequency, seed=0)
    one, other = epochs(ProcessBatches(order), 2)
    for batch in one + other:
        assert np.bincount([place[2] for place in batch[::2]]).tolist() == share


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_whole_pairs(kind: str, processes: int) -> None:
    order = orders(size=10)[kind]
    partner = dict(zip(*(rows.tolist() for rows in order.pairs), strict=True))
    whole = epochs(ProcessBatches(order), 2)
    shares = [epochs(ProcessBatches(order, rank, processes), 2) for rank in range(processes)]
    padded = 0
    for epoch, run in enumerate(whole):
        for number, batch in enumerate(run):
            parts = [share[epoch][number] for share in shares]
            for part in parts:
                rows = [place[1] for place in part]
                assert [partner[row] for row in rows[::2]] == rows[1::2]
            real: list[Place] = [place for part in parts for place in part if place[2] != -1]
            assert sorted(real) == sorted(batch)
            padded += sum(map(len, parts)) - len(real)
            assert max(map(len, parts)) - min(map(len, parts)) <= 2
    assert padded == 0 or kind == "pairs"


def test_a_process_without_a_pair_in_the_last_batch_gets_a_pair_as_padding() -> None:
    pairs = PairRows(np.arange(0, 6, 2), np.arange(1, 6, 2))
    order = Pairs(pairs, np.arange(6) % 2, size=4, seed=0)
    last = [list(ProcessBatches(order, rank, 2))[-1] for rank in (0, 1)]
    assert [place[2] for place in last[1]] == [-1, -1]
    assert [place[1] for place in last[0]] == [place[1] for place in last[1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0, 1, 4])
def test_an_epoch_may_begin_at_any_batch(kind: str, start: int) -> None:
    order = orders()[kind]
    whole = ProcessBatches(order, 1, 2, epoch=2)
    assert list(ProcessBatches(order, 1, 2, epoch=2, start=start)) == list(whole)[start:]
    assert any(place[3] for batch in whole for place in batch)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_follows_from_seed_and_epoch(kind: str) -> None:
    one, same, other = (epochs(ProcessBatches(orders(seed)[kind]), 2) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    endless: Iterator[list[Place]] = iter(EndlessBatches(orders()[kind]))
    assert next(endless) == one[0][0]


def test_batches_that_cannot_hold_pairs_are_refused() -> None:
    for kind in KINDS:
        with pytest.raises(InputError, match=r"batch_size=7 is odd.*; give an even number"):
            orders(size=7)[kind]
    with pytest.raises(InputError, match=r"batch_size=2 has no room.*raise it to at least 4"):
        orders(size=2)
    some = orders()["balanced"]
    assert isinstance(some, DomainPairs)
    with pytest.raises(InputError, match=r"domain 'lipsync' has no fake training frame whose real"):
        replace(some, names=["blend", "swap", "lipsync"])


def paired(root: Path, absent: str = "") -> Iterator[Entry]:
    """The frames of a tree whose fakes are made from the real videos of the same names."""
    for entry in folder.scan(
        root, dataset="mine", layout="{split}/{domain}/{video}", splits=SPLITS, real=["real"]
    ):  # pyright: ignore
        assert isinstance(entry, Frame)
        name = entry.video.rpartition("/")[2]
        known = entry.label == 1 and name != absent
        yield replace(entry, pair=video_id("mine", REAL, "", name) if known else "")


@pytest.fixture(scope="module")
def forgeries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forgeries beside real frames: 24 training frames."""
    return grow_tree(
        tmp_path_factory.mktemp("forgeries"), domains=("real", "swap", "blend"), videos=4
    )


def data(root: Path, absent: str = "", **changes: Any) -> DataModule:
    source = functools.partial(paired, absent=absent)
    return module(root, **({"source": source, "batches": "pairs", "batch_size": 8} | changes))


def test_training_batches_are_made_of_pairs_and_the_log_counts_what_is_left_out(
    forgeries: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fmsd"):
        loader = data(forgeries, absent="train1").train_dataloader()
    assert (
        "12 fake training frames are each shown with a frame of the real video that they were "
        "made from; 4 fakes without one and 2 real frames that are in no pair are not shown"
    ) in caplog.text
    table = data(forgeries, absent="train1").splits.train.table
    batches = list(loader)
    assert [len(batch.label) for batch in batches] == [8, 8, 8]
    for batch in batches:
        assert batch.label.tolist() == [1, 0] * 4
        fake, real = table[batch.row[::2].numpy()], table[batch.row[1::2].numpy()]
        assert fake["pair"].equals(real["video"])
        assert fake["index"].equals(real["index"])


@pytest.mark.parametrize("batches", ["pairs", "balanced_pairs"])
def test_data_without_pairs_are_refused_with_the_remedy(forgeries: Path, batches: str) -> None:
    plain = module(forgeries, batches=batches)
    with pytest.raises(
        InputError,
        match=r"none of the 16 fake training frames .*method=gend.*"
        r"; add data\.batches=shuffle; .*fmsd index.*column pair",
    ):
        plain.train_dataloader()


def test_a_domain_is_that_of_the_fake(forgeries: Path) -> None:
    assert data(forgeries).training_domains == []
    assert data(forgeries, batches="natural_pairs").training_domains == IDS
    by_index = data(forgeries, batches="balanced_pairs", domains="index")
    assert by_index.training_domains == ["0", "1"]
    table = by_index.splits.train.table
    for batch in by_index.train_dataloader():
        assert batch.domain.tolist() == table["index"][batch.row.numpy()].to_list()


def test_self_blended_images_are_paired_with_their_own_frames(forgeries: Path) -> None:
    blended = module(forgeries, batches="pairs", batch_size=4, augment="sbi")
    table = blended.splits.train.table
    seen = 0
    for batch in blended.train_dataloader():
        for fake, real in batch.row.reshape(-1, 2).tolist():
            assert table["domain"][fake] == "sbi"
            assert table["path"][fake] == table["path"][real]
            seen += 1
    assert seen == 8


def test_a_batch_must_hold_a_pair_for_each_process(forgeries: Path) -> None:
    small = data(forgeries, batch_size=4)
    small.trainer = type("Two", (), {"global_rank": 0, "world_size": 3})()  # pyright: ignore
    with pytest.raises(InputError, match=r"batch_size=4 is shared by 3 .*at least 6"):
        small.train_dataloader()


def test_networks_train_on_pairs_also_with_domains(forgeries: Path, tmp_path: Path) -> None:
    plain = data(forgeries)
    learner = train(ERM(), plain.train_dataloader(), tmp_path / "erm", domains=[])
    assert learner.trainer.global_step == 4
    aligned = data(forgeries, batches="balanced_pairs")
    wrapper = RoGA(0.3, 0.1, 2.0, "own", 0)
    learner = train(
        wrapper, aligned.train_dataloader(), tmp_path / "roga", domains=aligned.training_domains
    )
    assert learner.trainer.global_step == 4
    assert all(torch.isfinite(value).all() for value in learner.detector.parameters())


@pytest.mark.slow
def test_a_training_does_not_go_on_with_other_pairs(forgeries: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(forgeries, root)
    listed = from_entries(paired(root), root).table
    listed.write_csv(root / "manifest.csv")
    words = ("data=table", "data.train=[mine]", "data.test=[mine]", "data.batches=pairs")
    run = start(tmp_path, *words, "trainer.max_epochs=500", "hydra.run.dir=run")
    curves = tmp_path / "run/logs/metrics.csv"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and run.poll() is None and not curves.exists():
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert "go on with fmsd train resume=" in run.communicate()[1]
    first = pl.col("pair") == "mine/real/train0"
    other = pl.when(first).then(pl.lit("mine/real/train1")).otherwise("pair")
    listed.with_columns(pair=other).write_csv(root / "manifest.csv")
    assert "The pairs of the training frames of this run are not those" in refused(
        tmp_path, "train", "resume=run"
    )
