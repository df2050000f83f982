"""Copies of a dataset for the doctor to examine, and defects to plant in them."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from fmsd.data.entries import from_entries
from fmsd.data.selection import Selection
from fmsd.data.sources import ffpp, folder, table
from fmsd.tasks.doctor import doctor

SPLITS = ("train", "val", "test")


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def write(path: Path, image: np.ndarray, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=quality)
    return path


def module(
    root: Path, source: Callable[..., Any], name: str = "mine", **settings: Any
) -> Selection:
    return Selection(name, str(root), source, train=[], test=[], **settings)


def examined(data: Selection, out: Path, frames: int | None = 2, **settings: Any) -> dict[str, Any]:
    """The report, with its findings by their names."""
    sound = doctor(data, out / "report.json", frames, workers=0, **settings)
    report = json.loads((out / "report.json").read_text())
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert (
        sound
        == all(finding["severity"] != "fatal" for finding in findings.values())
        == (not report["fatal"])
    )
    return report | {"findings": findings}


TREE = functools.partial(
    folder.scan,
    dataset="mine",
    layout="{split}/{domain}/{video}",
    splits={split: split for split in SPLITS},
    real=["real"],
)  # pyright: ignore[reportArgumentType]

LISTED = functools.partial(table.scan, file="frames.csv")


def clean_copy(root: Path) -> Path:
    """Two videos of two frames in every split and domain, and a table that lists them."""
    seed = 0
    for split in SPLITS:
        for domain in ("real", "swap"):
            for video in ("a", "b"):
                for index in range(2):
                    write(
                        root / split / domain / f"{split}{video}" / f"{index}.jpg",
                        noise(seed := seed + 1),
                    )
    from_entries(TREE(root), root).table.write_csv(root / "frames.csv")
    return root


def rewritten(root: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_csv(root / "frames.csv", schema_overrides={"compression": pl.String})).write_csv(
        root / "frames.csv"
    )


ONE = "train/swap/traina/0.jpg"


def delete(root: Path) -> None:
    (root / ONE).unlink()


def checks(findings: Sequence[Any]) -> dict[str, tuple[str, list[str]]]:
    return {finding.check: (finding.severity, finding.examples) for finding in findings}


def forensics(root: Path) -> Path:
    """FaceForensics++ of three pairs, a split each."""
    for place, (one, other) in enumerate((("000", "001"), ("002", "003"), ("004", "005"))):
        (root / "splits").mkdir(parents=True, exist_ok=True)
        (root / "splits" / f"{SPLITS[place]}.json").write_text(json.dumps([[one, other]]))
        for number, name in enumerate((one, other, f"{one}_{other}", f"{other}_{one}")):
            home = (
                "manipulated_sequences/Deepfakes" if "_" in name else "original_sequences/youtube"
            )
            for index in range(2):
                write(
                    root / home / "c23" / "frames" / name / f"{index}.png",
                    noise(100 * place + 10 * number + index),
                )
    return root


FFPP = functools.partial(ffpp.scan, dataset="few", manipulations=["Deepfakes"])


def cut(root: Path) -> None:
    content = (root / ONE).read_bytes()
    (root / ONE).write_bytes(content[: len(content) // 2])
