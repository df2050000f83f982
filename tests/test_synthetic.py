"""The embedded dataset is a fair question: forgeries are local, differ from each other, and nothing
but them tells the label.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.video import sample_video
from fmsd.data.frame import REAL
from fmsd.data.synthetic import faces, plan, recording
from fmsd.data.synthetic.film import write_film
from fmsd.data.synthetic.forgeries import FORGERIES
from fmsd.data.synthetic.plan import PLAN, Clip
from fmsd.data.synthetic.recording import CONDITIONS


def scene(number: int = 0) -> faces.Scene:
    rng = np.random.default_rng(number)
    condition = CONDITIONS["synthetic"]
    (pose,) = recording.draw_movement(rng, 1, condition)
    return faces.render(recording.draw_identity(rng, condition), pose, number, condition.clutter)


@pytest.mark.parametrize("name", list(FORGERIES))
def test_a_forgery_changes_the_face_and_leaves_the_background(name: str) -> None:
    original = scene()
    forged = FORGERIES[name](original, np.random.default_rng(1))
    difference = np.abs(forged - original.image).mean(-1)
    assert difference[original.face > 0.9].mean() > 0.002
    assert difference[original.face == 0].max() <= 1 / 255
    assert 10 < (original.face > 0.5).mean() * 100 < 70


def test_forgeries_differ_from_each_other() -> None:
    original = scene()
    forged = {name: forge(original, np.random.default_rng(1)) for name, forge in FORGERIES.items()}
    for one, other in itertools.combinations(forged.values(), 2):
        assert np.abs(one - other).max() > 0.02


def test_upsampling_leaves_a_checkerboard_in_the_spectrum() -> None:
    def checkerboard(image: np.ndarray) -> float:
        spectrum = np.abs(np.fft.fft2(image.mean(-1)))
        size = image.shape[0]
        return float(
            spectrum[size // 2, size // 2] + spectrum[0, size // 2] + spectrum[size // 2, 0]
        )

    ratios = [
        checkerboard(FORGERIES["upsample"](scene(n), np.random.default_rng(n)))
        / checkerboard(scene(n).image)
        for n in range(8)
    ]
    assert np.median(ratios) > 2


def test_frames_are_deterministic_and_move_within_a_video() -> None:
    clip = Clip("synthetic", "test", "blend", "test000")
    first, second = list(plan.record_clip(clip)), list(plan.record_clip(clip))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert len(first) == plan.FRAMES
    assert np.abs(first[0].astype(int) - first[-1].astype(int)).mean() > 1


def test_compression_tells_nothing_about_the_label() -> None:
    qualities = {
        domain: [
            plan.jpeg_quality(Clip("synthetic_shift", "test", domain, f"test{n:03d}"))
            for n in range(200)
        ]
        for domain in (REAL, "blend")
    }
    low, high = CONDITIONS["synthetic_shift"].jpeg
    for values in qualities.values():
        assert low <= min(values)
        assert max(values) <= high
    assert abs(np.mean(qualities[REAL]) - np.mean(qualities["blend"])) < 1.5


def test_the_second_dataset_is_unseen_in_people_condition_and_forgeries() -> None:
    assert set(PLAN["synthetic_shift"]) == {"test"}
    trained = set(PLAN["synthetic"]["train"]) - {REAL}
    tested = set(PLAN["synthetic_shift"]["test"]) - {REAL}
    assert trained < tested == set(FORGERIES)
    assert CONDITIONS["synthetic"] != CONDITIONS["synthetic_shift"]
    seeds = [plan.seed_from(plan.DRAWING_VERSION, *clip) for clip in plan.all_clips()]
    assert len(seeds) == len(set(seeds))
    for splits in PLAN.values():
        for domains in splits.values():
            assert domains[REAL] == sum(
                count for domain, count in domains.items() if domain != REAL
            )


def test_a_film_shows_the_drawn_frames_with_a_face_in_each(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", "blend", frames=6)
    shown = [sample.image for sample in sample_video(tmp_path / "film.mp4", None)]
    drawn = list(plan.record_clip(Clip("synthetic", "test", "blend", "film"), 6))
    assert np.array_equal(shown, drawn)
    assert np.array_equal(
        drawn[:4], list(plan.record_clip(Clip("synthetic", "test", "blend", "film")))
    )
    find = YuNet()
    assert [len(find(image)) for image in drawn] == [1] * 6
