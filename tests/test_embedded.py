"""The embedded dataset is drawn alike every time, and completely or not at all."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.sources import synthetic as embedded
from fmsd.data.synthetic import plan


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        name: {split: dict.fromkeys(domains, 1) for split, domains in splits.items()}
        for name, splits in plan.PLAN.items()
    }
    monkeypatch.setattr(plan, "PLAN", small)


def test_the_embedded_dataset_is_the_same_every_time_it_is_drawn(
    tmp_path: Path, small_plan: None
) -> None:
    drawn = [
        from_entries(embedded.scan(tmp_path / name), tmp_path / name).validate()
        for name in ("one", "two")
    ]
    assert drawn[0].digest() == drawn[1].digest()
    for one, other in zip(drawn[0].files(), drawn[1].files(), strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    before = Path(drawn[0].files()[0]).stat().st_mtime_ns
    from_entries(embedded.scan(tmp_path / "one"), tmp_path / "one")
    assert Path(drawn[0].files()[0]).stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "one").iterdir()] == [
        f"synthetic-v{plan.DRAWING_VERSION}"
    ]


def test_a_killed_drawing_leaves_nothing_that_could_be_mistaken_for_the_dataset(
    tmp_path: Path, small_plan: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "encode_jpeg", fail)
    with pytest.raises(KeyboardInterrupt):
        list(embedded.scan(tmp_path))
    assert list(tmp_path.iterdir()) == []
