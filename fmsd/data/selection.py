"""Selection: the rules that choose the frames to train on, to validate on and to test on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmsd.checks import check_choice, check_range
from fmsd.data.frame import Entry
from fmsd.data.mirror import root_folder
from fmsd.errors import InputError
from fmsd.names import check_name

Scan = Callable[[Path], Iterable[Entry]]
"""A source: yields the frames and videos below a root, and the problems of that copy."""


@dataclass(frozen=True)
class Selection:
    """The rules that choose frames of a training dataset and of its test datasets.

    It reads nothing from disk: `fmsd.data.selected_frames` loads the frames.

    Args:
        name: the data's name, for messages.
        root: its folder, or the address of a pack.
        source: lists the frames under the root.
        train: names of the datasets to train on, among those that the source yields.
        test: names of the datasets to test on: those that the source yields, and those in `others`.
        others: sources of test datasets that lie elsewhere.
        roots: the folders of those.
        absent: what happens to test datasets without a folder: `skip`, with a warning, or `refuse`.
        suite: the name of the set of test datasets, for the record; None without one.
        manifest: a manifest written by `fmsd index`, read instead of scanning the root. A folder
            that `fmsd extract` or `fmsd pack` wrote brings its own.
        forgeries: domains of the fakes to train and test on, among the datasets of the root;
            None for all. Real frames stay.
        compression: the compression to read where datasets hold several (`c23`, `c40`); frames
            without one stay.
        expected: number of videos of a complete copy by split (or `all`) and domain, for `fmsd
            doctor`.
        names: the meaning of video names, for `fmsd doctor`: `sources` that a video is made from
            (`033_097`), or `persons` that it shows (`id0_id1_0003`); None for no meaning.
        protocol: name of the next three rules, written into every result.
        sampling: how `frames` of a video are taken: `spread` evenly from its first to its last, or
            the `first` ones.
        naming: the key of a video within a dataset: its `id`, or the name of its `folder` alone,
            which merges equal names.
        video_score: the score of a video from its frames' probabilities: `mean`, `median`, `max`,
            or the mean of the highest k (`top5`).
        definitions: of the metrics: `fmsd`, or `deepfakebench` for those of its released code.
        frames: largest number of frames per video; None for all.
        train_frames: the same for training videos alone; None for `frames`.
        videos: largest number of videos per split and domain, for a quick trial; None for all.
        val_fraction: share of the training videos held out for validation, in (0, 1), where the
            dataset has no validation split.
        train_forgeries: domains of the fakes to train and validate on, where the tests keep all:
            a specialist. None for all.
        left_out: a forgery that is not trained on and, with real frames, makes up the validation
            split; None for none.

    Raises:
        InputError: a setting is out of range or unknown.
    """

    name: str
    root: str | None
    source: Scan
    train: Sequence[str]
    test: Sequence[str]
    others: Mapping[str, Scan] = field(default_factory=dict)
    roots: Mapping[str, str | None] = field(default_factory=dict)
    absent: str = "skip"
    suite: str | None = None
    manifest: str | None = None
    forgeries: Sequence[str] | None = None
    compression: str | None = None
    expected: Mapping[str, Mapping[str, int]] | None = None
    names: str | None = None
    protocol: str = "fmsd"
    sampling: str = "spread"
    naming: str = "id"
    video_score: str = "mean"
    definitions: str = "fmsd"
    frames: int | None = None
    train_frames: int | None = None
    videos: int | None = None
    val_fraction: float = 0.1
    train_forgeries: Sequence[str] | None = None
    left_out: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_name(self.name, "data.name")
        if self.suite is not None:
            check_name(self.suite, "suite")
        check_choice("data.absent", self.absent, ("skip", "refuse"))
        check_range("data.frames", self.frames, 1, null="all")
        check_range("data.train_frames", self.train_frames, 1, null="as many as data.frames")
        check_range("data.videos", self.videos, 1, null="all")
        if not 0 < self.val_fraction < 1:
            raise InputError(
                f"data.val_fraction={self.val_fraction} is no share",
                "give a number between 0 and 1",
            )
        check_choice("data.sampling", self.sampling, ("spread", "first"))
        check_choice("data.naming", self.naming, ("id", "folder"))
        check_choice("data.definitions", self.definitions, ("fmsd", "deepfakebench"))
        check_choice("data.names", self.names or "null", ("null", "sources", "persons"))

    @property
    def frames_to_train(self) -> int | None:
        """Largest number of frames per training video; None for all."""
        return self.frames if self.train_frames is None else self.train_frames

    @property
    def root_path(self) -> Path:
        """The root as an absolute path; of a pack at an address, the folder that stands for it.

        Raises:
            InputError: there is no root, or the pack at an address cannot be used.
        """
        if self.root is None:
            raise InputError(
                f"data={self.name} has no root", "give the dataset's folder as data.root=PATH"
            )
        return root_folder(self.root)
