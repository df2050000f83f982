"""Official split lists of datasets: the videos of each split, or what identifies their list.

A list whose licence allows it lies in `split_lists/NAME.txt`, with its origin and licence. Of the
others only the number and the digest of the names are here, to recognise the list in a user's copy.
"""

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fmsd.data.frame import Split
from fmsd.errors import InputError

Kind = Literal["real", "fake"]
"""The two kinds of videos of a list: its fakes are those of every forgery."""

Names = Mapping[str, Mapping[Kind, frozenset[str]]]
"""The names of the videos of a list by split and kind, as they are in the last part of an id."""

FOLDER = Path(__file__).parent / "split_lists"
"""The lists that come with the package."""


@dataclass(frozen=True)
class NameSet:
    """What identifies a set of names.

    Args:
        count: the number of names.
        digest: see `names_digest`.
    """

    count: int
    digest: str

    def holds(self, names: Collection[str]) -> bool:
        """Whether these are the names."""
        return len(names) == self.count and names_digest(names) == self.digest


@dataclass(frozen=True, eq=False)  # one of the constants below; hashed as itself
class SplitList:
    """The official list of a dataset.

    Args:
        title: the dataset, for messages.
        parts: what identifies the videos by split and kind.
        file: the list in `FOLDER`; None where its licence keeps it from being here.
    """

    title: str
    parts: Mapping[Split, Mapping[Kind, NameSet]]
    file: str | None = None

    def identifies(self, names: Names) -> bool:
        """Whether names are those of the list in each of its splits."""
        return all(
            part.holds(names.get(split, {}).get(kind, frozenset()))
            for split, kinds in self.parts.items()
            for kind, part in kinds.items()
        )


FFPP = SplitList(
    "FaceForensics++",
    {
        "train": {
            "real": NameSet(
                720, "1e897548cb1f400f5668be171a0b6bb1329535f31364513c6503480cbe8d4290"
            ),
            "fake": NameSet(
                720, "516897c32948b690678fee3fb8c598d4a31bfc2a5b6a3842cc98c7aa0c8bec4a"
            ),
        },
        "val": {
            "real": NameSet(
                140, "ef1120a4a4b0a192b952ee1ab635d60bfef6cb5a1a5a32f09ae99b3ded2a139f"
            ),
            "fake": NameSet(
                140, "f024c62c22463a6c7bca19e17b2c604b921e7e4cf3874f29f3c2b3e29ac35c2a"
            ),
        },
        "test": {
            "real": NameSet(
                140, "c9cb1e9fdfa1ca94d3c005e4e0f304e74bdd519df0b11848321e5cec893da199"
            ),
            "fake": NameSet(
                140, "7c54a7f3ec2f9097cbd527a05d246408b7e79e98dc34e4623ce95ab427a028a6"
            ),
        },
    },
    "ffpp.txt",
)
"""The 1,000 source videos of FaceForensics++ in pairs, and the videos made from each pair."""

CELEBDF_V2 = SplitList(
    "Celeb-DF v2",
    {
        "test": {
            "real": NameSet(
                178, "dc68adadc33b48ffda8e462eb5e5628a067db1ab1c162f93b2cf87a38775be48"
            ),
            "fake": NameSet(
                340, "22a4f61f28b746e3b4a9fe9bfe6d9deca05185d15d7c35d5b4389f3be6946406"
            ),
        }
    },
)
"""List_of_testing_videos.txt of Celeb-DF v2.

The file's SHA-256 is 07063d46206e011aef9d1ad8d1854f5b87ae519ba6e452b897cc528c3dcfcdc0. The terms
of use of the dataset forbid commercial use of it and of what is derived from it.
"""

LISTS: Mapping[str, SplitList] = {"ff++": FFPP, "faceshifter": FFPP, "celebdf_v2": CELEBDF_V2}
"""The lists by the name of the dataset."""


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of the names in alphabetical order, one a line, in UTF-8."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


@functools.cache
def read_names(official: SplitList) -> Names:
    """The names in a list that comes with the package.

    Args:
        official: one with a file.

    Raises:
        InputError: the file is missing or is not the list that it was.
    """
    path = FOLDER / str(official.file)
    try:
        names = _parse_pairs(path.read_text(encoding="utf-8"))
        intact = official.identifies(names)
    except (OSError, ValueError):
        names, intact = {}, False
    if not intact:
        raise InputError(
            f"{path} is not the official split of {official.title} that fmsd was released with",
            "install fmsd again",
        )
    return names


def _parse_pairs(text: str) -> Names:
    """The names in lines `SPLIT ONE OTHER`: two source videos, swapped in both directions.

    Raises:
        ValueError: a line has another form.
    """
    names: dict[str, dict[Kind, set[str]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            split, one, other = line.split()
            kinds = names.setdefault(split, {"real": set(), "fake": set()})
            kinds["real"] |= {one, other}
            kinds["fake"] |= {f"{one}_{other}", f"{other}_{one}"}
    return {
        split: {kind: frozenset(members) for kind, members in kinds.items()}
        for split, kinds in names.items()
    }


def split_by_name(official: SplitList) -> dict[str, Split]:
    """The split of each name, real and fake, in a list that comes with the package.

    Raises:
        InputError: see `read_names`.
    """
    names = read_names(official)
    return {
        name: split
        for split in official.parts
        for members in names[split].values()
        for name in members
    }


def list_difference(listed: Mapping[str, Split], official: Mapping[str, Split]) -> str:
    """How a list differs from the official one, as a clause; empty where it does not.

    Args:
        listed, official: the split of each video by its name.
    """
    groups = {
        "lacks": [name for name in official if name not in listed],
        "adds": [name for name in listed if name not in official],
        "has in another split": [
            name for name in listed if name in official and listed[name] != official[name]
        ],
    }
    return ", ".join(f"{verb} {describe_names(names)}" for verb, names in groups.items() if names)


def describe_names(names: Collection[str], shown: int = 5) -> str:
    """A number of videos with the first of them: `7 videos (000, 003, 009, 011, 012, ...)`."""
    first = sorted(names)[:shown]
    rest = ", ..." if len(names) > shown else ""
    plural = "" if len(names) == 1 else "s"
    return f"{len(names):,} video{plural} ({', '.join(first)}{rest})"
