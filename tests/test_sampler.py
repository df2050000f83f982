"""The laws of training batches, alone, through loaders, and across a resumption."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from fmsd.data.frame import Frame
from fmsd.data.loading import blending
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import read_image
from fmsd.data.loading.quotas import apportion, recycle
from fmsd.data.loading.sampler import (
    EndlessBatches,
    EveryDomain,
    Place,
    ProcessBatches,
    Shuffle,
)
from fmsd.data.loading.transforms import build_transform, with_generator
from fmsd.data.selection import Selection
from fmsd.data.sources import folder
from fmsd.engine.datamodule import DataModule, domain_names
from fmsd.engine.measurement_batches import MeasurementBatches
from fmsd.errors import InputError
from fmsd.types import Frames
from tests.conftest import grow_tree
from tests.test_engine import LOADER

FAKES, REALS = (40, 17, 3), 25
SPLITS = {"train": "train", "val": "val", "test": "test"}


def frames(
    fakes: tuple[int, ...] = FAKES, reals: int = REALS, own: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and domains in a mixed order: fakes of each domain, real frames without a domain, and
    real frames of each domain.
    """
    domain = np.concatenate(
        [
            np.repeat(np.arange(len(fakes)), fakes),
            np.full(reals, -1),
            np.repeat(np.arange(len(own)), own),
        ]
    ).astype(np.int64)
    label = (np.arange(len(domain)) < sum(fakes)).astype(np.int64)
    mixed = np.random.default_rng(1).permutation(len(domain))
    return label[mixed], domain[mixed]


def sampler(
    frequency: str = "balanced",
    size: int = 12,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
    **kinds: Any,
) -> ProcessBatches:
    label, domain = frames(**kinds)
    names = [f"domain{index}" for index in range(len(kinds.get("fakes", FAKES)))]
    return ProcessBatches(EveryDomain(label, domain, names, size, frequency, seed), rank, processes)


def epochs(batches: ProcessBatches, count: int) -> list[list[list[Place]]]:
    """The batches of the first epochs."""
    seen = []
    for epoch in range(count):
        batches.set_epoch(epoch)
        seen.append(list(batches))
    return seen


@pytest.mark.parametrize("frequency", ["balanced", "natural"])
@pytest.mark.parametrize("size", [6, 7, 13, 24])
@pytest.mark.parametrize(
    "kinds", [{}, {"reals": 0, "own": (9, 4, 12)}, {"reals": 8, "own": (9, 0, 2)}]
)
def test_every_batch_holds_every_domain_with_both_classes(
    frequency: str, size: int, kinds: dict[str, Any]
) -> None:
    label, domain = frames(**kinds)
    batches = sampler(frequency, size, **kinds)
    for epoch, run in enumerate(epochs(batches, 3)):
        assert len(run) == len(batches) == -(-len(label) // size)
        for batch in run:
            assert len(batch) == size
            assert {place[0] for place in batch} == {epoch}
            assert {(place[2], label[place[1]]) for place in batch} == set(
                itertools.product(range(3), (0, 1))
            )
            assert all(domain[row] in (-1, given) for _, row, given, _ in batch)


def test_each_epoch_deals_every_real_frame_to_one_domain_evenly_and_anew() -> None:
    label, domain = frames(reals=26, own=(0, 5, 0))
    dealt = []
    for run in epochs(sampler(size=60, reals=26, own=(0, 5, 0)), 2):
        pairs = {(row, given) for batch in run for _, row, given, _ in batch if label[row] == 0}
        assert len(pairs) == 31
        assert len(dict(pairs)) == 31
        loose = {row: given for row, given in pairs if domain[row] == -1}
        assert sorted(Counter(loose.values()).values()) == [8, 9, 9]
        dealt.append(loose)
    assert dealt[0] != dealt[1]


@pytest.mark.parametrize("size", [6, 12, 13, 16, 23])
def test_balanced_parts_are_equal_and_what_does_not_divide_evens_out(size: int) -> None:
    label, _ = frames()
    parts = []
    for batch in itertools.chain(*epochs(sampler(size=size), 6)):
        part = Counter((given, label[row]) for _, row, given, _ in batch)
        assert set(part.values()) <= {size // 6, -(-size // 6)}
        parts.append(part)
    whole = len(parts) // 6 * 6
    totals = sum(parts[:whole], Counter())
    assert set(totals.values()) == {whole * size // 6}


@pytest.mark.parametrize(
    ("counts", "size", "parts"),
    [
        ([50, 30, 15, 5], 20, [10, 6, 3, 1]),
        ([1000, 1, 1], 10, [8, 1, 1]),
        ([6, 3, 1], 4, [2, 1, 1]),
        ([5, 5, 5], 3, [1, 1, 1]),
        ([5, 4, 4], 8, [3, 3, 2]),
    ],
)
def test_natural_parts_follow_the_counts_by_largest_remainders_but_are_at_least_one(
    counts: list[int], size: int, parts: list[int]
) -> None:
    assert apportion(np.array(counts), size).tolist() == parts


def test_natural_batches_are_alike_and_follow_the_number_of_frames() -> None:
    label, _ = frames((60, 20, 20), 90)
    runs = epochs(sampler("natural", 19, fakes=(60, 20, 20), reals=90), 2)
    parts = {
        frozenset(Counter((given, label[row]) for _, row, given, _ in batch).items())
        for batch in itertools.chain(*runs)
    }
    assert parts == {
        frozenset({((0, 1), 6), ((1, 1), 2), ((2, 1), 2), ((0, 0), 3), ((1, 0), 3), ((2, 0), 3)})
    }


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("low", [1, 2, 3, 5])
def test_a_cell_is_read_evenly_and_no_batch_holds_a_frame_twice_unless_it_must(
    count: int, low: int
) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        quotas = rng.integers(low, low + 2, 40)
        stream = recycle(count, quotas, rng)
        assert len(stream) == quotas.sum()
        for end in range(1, len(stream) + 1):
            shown = np.bincount(stream[:end], minlength=count)
            assert shown.max() - shown.min() <= 1
        for quota, batch in zip(quotas, np.split(stream, quotas.cumsum()[:-1]), strict=True):
            assert len(set(batch)) == quota or quota > count


def test_a_small_cell_is_recycled_in_fresh_orders() -> None:
    stream = recycle(6, np.full(20, 6), np.random.default_rng(0)).reshape(20, 6)
    assert len({tuple(order) for order in stream}) > 10


@pytest.mark.parametrize("frequency", ["balanced", "natural"])
def test_repeats_tell_how_often_an_epoch_shows_a_frame(frequency: str) -> None:
    label, _ = frames((40, 20, 4), 32)
    batches = sampler(frequency, fakes=(40, 20, 4), reals=32)
    (run,) = epochs(batches, 1)
    assert batches.order.repeats.shape == (3, 2)
    for given, name in enumerate((40, 20, 4)):
        shown = sum(place[2] == given and label[place[1]] == 1 for batch in run for place in batch)
        assert batches.order.repeats[given, 1] == pytest.approx(shown / name)
    shown = sum(label[row] == 0 for batch in run for _, row, _, _ in batch)
    assert (batches.order.repeats[:, 0] * [11, 11, 10]).sum() == pytest.approx(shown)


def kinds_of(rank: int = 0, processes: int = 1) -> list[ProcessBatches]:
    """A sampler of each kind; the last batch of the shuffle has one frame."""
    shuffle = ProcessBatches(Shuffle(np.arange(29) % 4, 7, 3), rank, processes)
    return [
        shuffle,
        *(sampler(frequency, 13, 3, rank, processes) for frequency in ("balanced", "natural")),
    ]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_the_shares_of_the_processes_are_the_joint_batch(processes: int, start: int) -> None:
    for kind, whole in enumerate(kinds_of()):
        shares = [kinds_of(rank, processes)[kind] for rank in range(processes)]
        for batches in (whole, *shares):
            batches.set_epoch(1)
            batches.start = start
        for joint, *parts in zip(whole, *shares, strict=True):
            assert all(parts)
            own = [[place for place in part if place[2] != -1] for part in parts]
            assert own == [joint[rank::processes] for rank in range(processes)]
            fillers = [place for part in parts for place in part if place[2] == -1]
            assert len(fillers) == max(0, processes - len(joint))
            assert {(epoch, row, turn) for epoch, row, _, turn in fillers} <= {
                (epoch, row, turn) for epoch, row, _, turn in joint
            }


@pytest.mark.parametrize("frequency", ["balanced", "natural"])
@pytest.mark.parametrize("processes", [1, 3])
def test_an_occurrence_is_how_often_the_epoch_has_shown_the_row_before(
    frequency: str, processes: int
) -> None:
    shares = [sampler(frequency, 13, rank=rank, processes=processes) for rank in range(processes)]
    shown: Counter[tuple[int, int]] = Counter()
    for epoch in range(2):
        for share in shares:
            share.set_epoch(epoch)
        for parts in zip(*shares, strict=True):
            joint = [
                part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)
            ]
            for place in joint:
                assert place[3] == shown[place[:2]]
                shown[place[:2]] += 1
    assert max(shown.values()) > 2


def test_processes_have_even_shares_of_each_cell() -> None:
    label, _ = frames()
    for parts in zip(*(sampler(size=24, rank=rank, processes=2) for rank in range(2)), strict=True):
        assert [
            set(Counter((given, label[row]) for _, row, given, _ in part).values())
            for part in parts
        ] == [{2}, {2}]


@pytest.mark.parametrize("start", [0, 1, 3, 5, 99])
def test_an_epoch_may_begin_at_any_batch_and_has_its_whole_length(start: int) -> None:
    for batches in kinds_of():
        whole = epochs(batches, 3)
        batches.start = start
        assert list(batches) == whole[2][start:]
        assert len(batches) == len(whole[2])
        batches.set_epoch(2)
        assert batches.start == start
        batches.set_epoch(3)
        assert batches.start == 0
        assert batches.sampler is batches


def test_seeds_and_epochs_have_orders_of_their_own_and_the_same_seed_the_same() -> None:
    for kind in (
        lambda seed: ProcessBatches(Shuffle(np.zeros(30, np.int64), 5, seed)),
        lambda seed: sampler(seed=seed),
    ):
        runs = [
            [[place[1:] for place in batch] for batch in run]
            for seed in (0, 1)
            for run in epochs(kind(seed), 3)
        ]
        assert all(one != other for one, other in itertools.combinations(runs, 2))
        assert epochs(kind(0), 3) == epochs(kind(0), 3)


def test_cells_of_equal_size_have_orders_of_their_own() -> None:
    label, domain = frames((12, 12), 30)
    (run,) = epochs(sampler(size=8, fakes=(12, 12), reals=30), 1)
    shown = [
        [row for batch in run for _, row, given, _ in batch if given == cell and label[row]]
        for cell in range(2)
    ]
    ranks = [
        np.searchsorted(np.flatnonzero(domain == cell), shown[cell]).tolist() for cell in range(2)
    ]
    assert ranks[0] != ranks[1]


def test_a_shuffle_is_the_permutation_of_seed_and_epoch() -> None:
    domain = np.arange(11) % 3
    for epoch, run in enumerate(epochs(ProcessBatches(Shuffle(domain, 4, 7)), 2)):
        assert [len(batch) for batch in run] == [4, 4, 3]
        rows = np.random.default_rng([7, epoch]).permutation(11)
        assert list(itertools.chain(*run)) == [(epoch, row, domain[row], 0) for row in rows]


def test_endless_batches_are_full_and_cross_the_borders_of_epochs() -> None:
    domain = np.arange(11) % 3
    batches = list(itertools.islice(EndlessBatches(Shuffle(domain, 4, 7)), 6))
    assert all(len(batch) == 4 for batch in batches)
    places = itertools.chain.from_iterable(
        itertools.chain(*epochs(ProcessBatches(Shuffle(domain, 4, 7)), 3))
    )
    assert list(itertools.chain(*batches)) == list(itertools.islice(places, 24))


def test_endless_batches_of_domains_count_occurrences_anew_in_each_epoch() -> None:
    order = sampler(size=12).order
    places = itertools.chain.from_iterable(itertools.chain(*epochs(ProcessBatches(order), 2)))
    batches = itertools.islice(EndlessBatches(order), 2 * order.batches)
    assert list(itertools.chain(*batches)) == list(places)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"size": 5},
            r"data\.batch_size=5 has no room for both classes of 3 domains; raise it to at least 6",
        ),
        (
            {"reals": 2},
            r"domain 'domain2' has no real training frames"
            r".* leave it out of data\.train=\[\.\.\.\], or choose another data\.domains",
        ),
        ({"fakes": (4, 0, 4)}, r"domain 'domain1' has no fake training frames"),
        ({"reals": 0, "own": (4, 4)}, r"domain 'domain2' has no real training frames"),
    ],
)
def test_domains_that_cannot_fill_a_batch_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sampler(**changes)


@pytest.mark.slow
@pytest.mark.parametrize("frequency", ["balanced", "natural"])
def test_a_million_frames_take_no_time(frequency: str) -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(1_000_000) < 0.8).astype(np.int64)
    domain = np.where(label == 1, np.minimum(rng.geometric(0.6, 1_000_000) - 1, 7), -1)
    begun = time.process_time()
    batches = ProcessBatches(EveryDomain(label, domain, list("abcdefgh"), 32, frequency, 0))
    assert sum(len(batch) for batch in batches) == 1_000_000
    assert time.process_time() - begun < 3


# ---- the data module


def data(root: Path, **changes: Any) -> DataModule:
    """Two datasets, `one` with the forgeries swap and blend, `two` with swap; videos have the
    compressions c23 and c40 by turns.
    """

    def source(place: Path) -> Iterator[Frame]:
        for name in ("one", "two"):
            for frame in folder.scan(
                place / name, name, "{split}/{domain}/{video}", SPLITS, ["real"]
            ):  # pyright: ignore
                yield replace(
                    frame, compression="c40" if int(frame.path.parent.name[-1]) % 2 else "c23"
                )

    if not root.exists():
        grow_tree(root / "one", domains=("real", "swap", "blend"), videos=3)
        grow_tree(root / "two", domains=("real", "swap"), videos=3)
    defaults = {
        "size": 16,
        "batch_size": 8,
        "workers": 0,
        "augment": "light",
        "batches": "balanced",
    }
    loader = defaults | {name: changes.pop(name) for name in LOADER if name in changes}
    names: dict[str, Any] = {"train": ["one", "two"], "test": ["one"]}
    selection = Selection("mine", str(root), source, **(names | changes))
    module = DataModule(selection, **loader)
    module.load("training", "tests")
    return module


@pytest.mark.parametrize(
    ("domains", "names"),
    [
        ("manipulation", ["blend", "swap"]),
        ("dataset", ["one", "two"]),
        ("compression", ["c23", "c40"]),
        ("index", ["0", "1"]),
    ],
)
@pytest.mark.parametrize("batches", ["balanced", "natural"])
def test_a_domain_is_a_manipulation_or_what_a_column_says(
    tmp_path: Path, domains: str, names: list[str], batches: str
) -> None:
    module = data(tmp_path / "data", domains=domains, batches=batches)
    assert module.training_domains == names
    table = module.splits.train.table
    column = "domain" if domains == "manipulation" else domains
    loader = module.train_dataloader()
    assert len(loader) == 4
    for batch in loader:
        rows = table[batch.row.numpy()]
        assert batch.label.tolist() == rows["label"].to_list()
        assert set(zip(batch.domain.tolist(), batch.label.tolist(), strict=True)) == set(
            itertools.product((0, 1), (0, 1))
        )
        for given, value, label in zip(
            batch.domain.tolist(), rows[column], rows["label"], strict=True
        ):
            assert names[given] == str(value) or (domains == "manipulation" and label == 0)


def test_shuffled_batches_have_no_domains_and_every_row_once(tmp_path: Path) -> None:
    module = data(tmp_path / "data", batches="shuffle")
    assert module.training_domains == []
    seen = list(module.train_dataloader())
    assert sorted(torch.cat([batch.row for batch in seen]).tolist()) == list(range(30))
    names = np.array(["blend", "real", "swap"])[torch.cat([batch.domain for batch in seen])]
    table = module.splits.train.table
    assert (
        names.tolist()
        == table[torch.cat([batch.row for batch in seen]).numpy()]["domain"].to_list()
    )


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"data\.domains=colour is unknown; choose one of manipulation, path, label, dataset, "
        r"domain, .* compression",
    ):
        data(tmp_path / "data", domains="colour")


def test_a_domain_without_a_class_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"domain 'blend' has no real training frames"):
        data(tmp_path / "data", domains="domain").train_dataloader()


@pytest.mark.parametrize("batches", ["shuffle", "balanced"])
def test_batches_are_the_same_with_any_number_of_loader_workers(
    tmp_path: Path, batches: str
) -> None:
    runs = [
        list(data(tmp_path / "data", workers=workers, batches=batches).train_dataloader())
        for workers in (0, 2)
    ]
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(("augment", "always"), [("dfb", False), ("sbi", True)])
def test_each_time_that_an_epoch_shows_a_frame_it_is_augmented_anew(
    tmp_path: Path, augment: str, always: bool
) -> None:
    """Blends are drawn from continuous distributions, so no two are equal; other augmentations
    leave a frame as it is now and then.
    """
    module = data(tmp_path / "data", train=["one"])
    whole = module.splits.train
    manifest = blending.add_self_blended(whole) if always else whole
    rare = blending.SBI if always else "blend"
    last = manifest.table.filter(pl.col("domain") != rare)
    manifest = replace(manifest, table=pl.concat([last, manifest.table.filter(domain=rare)[:1]]))
    dataset = FrameDataset(manifest, domain_names(manifest), 16, augment, seed=3)
    names = [domain for domain in domain_names(manifest) if domain != "real"]
    fake = manifest.table["label"].to_numpy() == 1
    domain = np.array(
        [names.index(name) if name in names else -1 for name in manifest.table["domain"]]
    )

    def pixels() -> dict[int, list[bytes]]:
        shown: dict[int, list[bytes]] = {}
        for place in itertools.chain(
            *ProcessBatches(EveryDomain(dataset.label, domain, names, 8, "balanced", 3))
        ):
            shown.setdefault(place[1], []).append(dataset[place].image.numpy().tobytes())
        return shown

    one, other = pixels(), pixels()
    assert one == other
    recycled = [images for row, images in one.items() if fake[row] and len(images) > 2]
    assert recycled
    for images in recycled:
        assert len(set(images)) == len(images) if always else len(set(images)) > 1


@pytest.mark.parametrize("batches", ["shuffle", "balanced"])
def test_the_first_time_a_frame_is_shown_its_augmentation_follows_from_seed_epoch_and_row(
    tmp_path: Path, batches: str
) -> None:
    module = data(tmp_path / "data", batches=batches)
    loader = module.train_dataloader()
    loader.batch_sampler.set_epoch(2)  # pyright: ignore
    files, seen = module.splits.train.files(), set()
    for batch in loader:
        for row, image in zip(batch.row.tolist(), batch.image, strict=True):
            if row not in seen:
                drawn = with_generator(
                    build_transform("light", 16), np.random.default_rng([module.seed, 2, row])
                )(image=read_image(files[row]))["image"]
                assert np.array_equal(image.numpy().transpose(1, 2, 0), drawn)
            seen.add(row)
    assert len(seen) > 20


def test_recycling_is_told_where_it_is_noticeable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fmsd"):
        data(tmp_path / "data", domains="compression", batches="natural").train_dataloader()
        assert "recycled" not in caplog.text
        data(tmp_path / "data", batches="balanced").train_dataloader()
    assert caplog.text.count("recycled") == 1
    assert "blend 1.33 and 1.33, swap 0.67 and 1.33" in caplog.text


def at(module: DataModule, rank: int, processes: int) -> DataModule:
    """The module as it is in one of several processes."""
    module.trainer = SimpleNamespace(global_rank=rank, world_size=processes)  # pyright: ignore
    return module


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_processes_share_the_validation_frames_and_the_training_batches(
    tmp_path: Path, processes: int
) -> None:
    module = data(tmp_path / "data")
    joint = list(module.train_dataloader())
    validated, trained = [], []
    for rank in range(processes):
        (loader,) = at(module, rank, processes).val_dataloader()
        validated.append([batch.row.tolist() for batch in loader])
        assert {len(rows) for rows in validated[-1][:-1]} <= {-(-8 // processes)}
        trained.append(list(module.train_dataloader()))
    rows = sorted(itertools.chain(*itertools.chain(*validated)))
    assert rows == list(range(len(module.splits.validation)))
    for whole, *parts in zip(joint, *trained, strict=True):
        assert all(
            torch.equal(part.row, whole.row[rank::processes]) for rank, part in enumerate(parts)
        )
        assert all(
            torch.equal(part.image, whole.image[rank::processes]) for rank, part in enumerate(parts)
        )
    assert len(torch.cat([batch.row for batch in module.test_loader("one")])) == len(
        module.tests["one"]
    )
    drawn = [
        next(MeasurementBatches(one, torch.device("cpu")).draw(1)).row
        for one in (module, data(tmp_path / "data"))
    ]
    assert torch.equal(*drawn)


def test_more_processes_than_frames_are_refused(tmp_path: Path) -> None:
    module = at(data(tmp_path / "data", batch_size=4), 0, 5)
    with pytest.raises(
        InputError, match=r"data\.batch_size=4 is shared by 5 processes; raise it to at least 5"
    ):
        module.train_dataloader()
    with pytest.raises(
        InputError, match=r"30 validation frames are shared by 31 processes; lower trainer\.devices"
    ):
        at(module, 0, 31).val_dataloader()


@pytest.mark.parametrize("batches", ["shuffle", "balanced"])
def test_a_loaded_position_is_where_the_next_loader_begins(tmp_path: Path, batches: str) -> None:
    module = data(tmp_path / "data", batches=batches)
    loader = module.train_dataloader()
    loader.batch_sampler.set_epoch(2)  # pyright: ignore
    whole = [batch.row.tolist() for batch in loader]
    module.load_state_dict({"epoch": 2, "batch": 1})
    assert module.state_dict() == {"epoch": 2, "batch": 1}
    resumed = module.train_dataloader()
    assert len(resumed) == 4
    assert [batch.row.tolist() for batch in resumed] == whole[1:]
    later = module.train_dataloader()
    later.batch_sampler.set_epoch(3)  # pyright: ignore
    assert len(list(later)) == 4
    module.teardown("fit")
    assert module.state_dict() == {"epoch": 0, "batch": 0}


class Watcher(LightningModule):
    """Learns nothing and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[int], int]] = []

    def training_step(self, batch: Frames, _: int) -> torch.Tensor:
        self.seen.append((batch.row.tolist(), int(batch.image.sum())))
        return self.weight.sum()

    def validation_step(self, batch: Frames, _: int) -> None:
        assert len(batch.row)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(Callback):
    """Writes a checkpoint wherever Lightning does, named by the moment and by the number of batches
    seen.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def on_train_batch_end(self, trainer: Trainer, pl_module: Watcher, *_: Any) -> None:  # pyright: ignore
        trainer.save_checkpoint(self.place / f"batch-{len(pl_module.seen)}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: Watcher) -> None:  # pyright: ignore
        trainer.save_checkpoint(self.place / f"validation-{len(pl_module.seen)}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Watcher) -> None:  # pyright: ignore
        trainer.save_checkpoint(self.place / f"epoch-{len(pl_module.seen)}.ckpt")


def trained(
    module: DataModule,
    place: Path,
    checkpoint: Path | None = None,
    limit: float | int = 1.0,
    epochs: int = 3,
) -> Watcher:
    """What is seen in a training from the checkpoint on."""
    watcher = Watcher()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    callbacks = [] if checkpoint else [Saver(place)]
    trainer = Trainer(
        **quiet,
        default_root_dir=place,
        max_epochs=epochs,
        num_sanity_val_steps=0,
        limit_train_batches=limit,
        callbacks=callbacks,
    )
    trainer.fit(watcher, datamodule=module, ckpt_path=checkpoint)
    if not checkpoint:
        trainer.save_checkpoint(place / f"end-{len(watcher.seen)}.ckpt")
    return watcher


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batches", "workers", "limit"), [("shuffle", 0, 1.0), ("balanced", 1, 1.0), ("natural", 0, 3)]
)
def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(
    tmp_path: Path, batches: str, workers: int, limit: float
) -> None:
    whole = trained(
        data(tmp_path / "data", batches=batches, workers=workers), tmp_path, limit=limit
    ).seen
    assert len(whole) == 3 * min(4, limit if limit > 1 else 4)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) == len(whole) + 2 * 3 + 1
    for checkpoint in checkpoints if workers == 0 else checkpoints[::5]:
        seen = int(checkpoint.stem.split("-")[1])
        resumed = trained(
            data(tmp_path / "data", batches=batches, workers=workers), tmp_path, checkpoint, limit
        ).seen
        assert resumed == whole[seen:], checkpoint.stem


def test_a_finished_training_goes_on_with_the_next_epoch(tmp_path: Path) -> None:
    whole = trained(data(tmp_path / "data"), tmp_path / "whole").seen
    trained(data(tmp_path / "data"), tmp_path / "part", epochs=2)
    resumed = trained(data(tmp_path / "data"), tmp_path, tmp_path / "part" / "end-8.ckpt").seen
    assert resumed == whole[8:]
