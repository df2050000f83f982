"""Shares of counts are what the decimals say, whatever floats make of the product."""

import math
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.frame import SCHEMA
from fmsd.data.manifest import Manifest
from fmsd.merge.ties import TIES
from fmsd.peft.mask import Masking, choose_layers
from fmsd.rounding import ceil_share, floor_share

COUNTS = (1, 7, 24, 100, 1_000, 86_567_656, 303_301_632, 10_000_000_000)


@pytest.mark.parametrize("count", COUNTS)
def test_a_share_in_hundredths_is_rounded_as_its_decimal_is(count: int) -> None:
    for hundredths in range(101):
        exact = Fraction(hundredths, 100) * count
        assert floor_share(hundredths / 100, count) == math.floor(exact)
        assert ceil_share(hundredths / 100, count) == math.ceil(exact)


@pytest.mark.parametrize("parts", [3, 6, 7, 9, 11])
def test_a_part_of_a_whole_is_rounded_as_the_fraction_is(parts: int) -> None:
    for taken in range(parts + 1):
        assert (
            floor_share(taken / parts, 1_000 * parts)
            == ceil_share(taken / parts, 1_000 * parts)
            == 1_000 * taken
        )


def test_the_products_of_floats_alone_would_be_wrong() -> None:
    assert int(0.29 * 100) == 28
    assert math.ceil(0.07 * 100) == 8


def test_ties_keeps_the_share_that_its_density_names() -> None:
    """Of 303,301,632 parameters, a ViT-L, the error of the product is larger than any fixed guard
    of the size of a float's last digit.
    """
    assert [TIES(density=0.29)._kept(count) for count in (100, 303_301_600)] == [29, 87_957_464]
    assert TIES(density=0.001)._kept(10) == 1
    assert TIES(density=0.0)._kept(10) == 0


def test_a_mask_keeps_the_share_that_its_fraction_names() -> None:
    names = [f"blocks.{block}.mlp.fc1" for block in range(100)]
    assert len(choose_layers(Masking(bias="random", fraction=0.07), names).kept_names) == 7


def test_a_split_that_is_held_out_has_the_share_that_was_asked_for() -> None:
    columns = {
        "path": "0.png",
        "label": 0,
        "dataset": "mine",
        "domain": "real",
        "index": 0,
        "split": "train",
    }
    rows = [
        columns | {"path": f"{video}/0.png", "video": f"mine/real/{video}"} for video in range(100)
    ]
    missing = {name: None for name in SCHEMA.names() if name not in rows[0]}
    table = pl.DataFrame([row | missing for row in rows], schema=SCHEMA)
    held = Manifest(table, Path("/")).hold_out(0.07)
    assert len(held.where(split="val").table) == 7
