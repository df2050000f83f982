"""From files to scores: persons, outcomes, bounded memory, and the frames that are taken."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fmsd.data.extraction.faces import Face, YuNet
from fmsd.errors import InputError
from fmsd.inference.media import Sampling, list_media, map_media, read_media_list
from fmsd.inference.outcome import FilePrediction, FrameScore
from fmsd.inference.predictor import (
    KEPT,
    CropScores,
    CropSettings,
    Predictor,
    person_scores,
)
from tests.films import film, shot, walk


def redness(crops: np.ndarray) -> CropScores:
    """A detector that takes red faces for fakes."""
    assert crops.ndim == 4
    red = crops[..., 0].mean((1, 2)) / 255
    return CropScores(red, np.full(len(crops), np.nan))


def predictor(**changes: object) -> Predictor:
    return Predictor(redness, YuNet(), **changes)  # pyright: ignore[reportArgumentType]


def tinted(image: np.ndarray, left: int, right: int) -> np.ndarray:
    """The image with red added to some columns."""
    result = image.copy()
    result[:, left:right, 0] = np.minimum(255, result[:, left:right, 0].astype(int) + 70)
    return result


def test_a_video_with_two_persons_is_decided_by_the_higher_score(tmp_path: Path) -> None:
    image = shot((400, 200), [(1, 10, 20, 120), (2, 200, 10, 180)])
    film(tmp_path / "two.mp4", [tinted(image, 0, 150)] * 12)
    found = predictor(sampling=Sampling(6)).predict(tmp_path / "two.mp4")
    assert (found.status, found.kind, found.sampled) == ("scored", "video", 6)
    assert [person.frames for person in found.persons] == [6, 6]
    assert found.decides is not None
    assert found.decides.person == 2  # the smaller face, on the left
    assert found.decides.score > found.persons[0].score + 0.1
    assert {face.frame.person for face in found.suspicious} == {2}
    assert all(face.frame.box[0] < 150 for face in found.suspicious)


def test_who_is_seen_for_a_moment_does_not_decide(tmp_path: Path) -> None:
    alone = shot((400, 200), [(2, 200, 10, 180)])
    both = tinted(shot((400, 200), [(1, 10, 20, 120), (2, 200, 10, 180)]), 0, 150)
    film(tmp_path / "guest.mp4", [alone] * 10 + [both] + [alone] * 10)
    found = predictor(sampling=Sampling(None)).predict(tmp_path / "guest.mp4")
    assert [person.counts for person in found.persons] == [True, False]
    assert found.persons[1].score > found.persons[0].score
    assert found.decides == found.persons[0]


def track(person: int, positions: range, score: float) -> list[FrameScore]:
    box = (0.0, 0.0, 9.0, 9.0)
    return [FrameScore(at, at / 2, person, box, score, 0.5) for at in positions]


def test_of_a_film_in_fragments_every_person_counts() -> None:
    frames = track(1, range(4), 0.1) + track(2, range(4, 8), 0.1)
    for person in range(3, 20):  # with 24 other frames: no one of 17 persons is seen often
        frames += track(person, range(5 + person, 6 + person + person % 2), person / 20)
    persons = person_scores(frames, "mean")
    assert all(person.counts for person in persons)
    cut = FilePrediction("a.mp4", "scored", kind="video", frames=frames, persons=persons)
    assert cut.decides is not None
    assert cut.decides.score == 19 / 20
    assert cut.share < 0.1


def test_who_has_the_largest_face_for_a_moment_does_not_count() -> None:
    persons = person_scores(track(1, range(1), 0.9) + track(2, range(1, 20), 0.1), "mean")
    assert [person.counts for person in persons] == [False, True]


def test_an_image_is_one_frame(tmp_path: Path) -> None:
    image = shot((300, 200), [(3, 60, 10, 180)])
    cv2.imwrite(str(tmp_path / "one.png"), image[..., ::-1])
    found = predictor().predict(tmp_path / "one.png")
    assert (found.status, found.kind, found.sampled, len(found.persons)) == (
        "scored",
        "image",
        1,
        1,
    )
    (face,) = found.suspicious
    assert face.crop.shape == (256, 256, 3)
    assert face.frame.score == pytest.approx(redness(face.crop[None]).score[0])


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_scores_do_not_depend_on_the_batch(tmp_path: Path, batch: int) -> None:
    film(tmp_path / "walk.mp4", walk(20))
    found = predictor(batch_size=batch, sampling=Sampling(None)).predict(tmp_path / "walk.mp4")
    again = predictor(sampling=Sampling(None)).predict(tmp_path / "walk.mp4")
    scores = [frame.score for frame in found.frames]
    assert scores == pytest.approx([frame.score for frame in again.frames])
    assert [frame.position for frame in found.frames] == list(range(20))


def test_crops_are_made_as_asked(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), shot((900, 900), [(3, 350, 350, 200)])[..., ::-1])
    wide = predictor(crops=CropSettings(96, 2.0, align=False)).predict(tmp_path / "a.png")
    (face,) = wide.suspicious
    assert face.crop.shape == (96, 96, 3)
    assert (face.crop[0, 0] == 120).all()  # the plain ground around the face


def test_no_face_and_unreadable_are_outcomes_without_a_score(tmp_path: Path) -> None:
    film(tmp_path / "empty_room.mp4", [np.full((120, 160, 3), 128, np.uint8)] * 5)
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    for name, status in (
        ("empty_room.mp4", "no face"),
        ("zero.mp4", "unreadable"),
        ("text.txt", "unreadable"),
        ("cut.jpg", "unreadable"),
    ):
        found = predictor().predict(tmp_path / name)
        assert found.status == status
        assert found.decides is None
        assert not found.persons
        assert bool(found.message) == (status == "unreadable")
        assert name in (found.message or name)


def test_frames_per_second_follow_the_clock_of_the_video(tmp_path: Path) -> None:
    film(tmp_path / "two_seconds.mp4", walk(50))  # 25 frames a second
    times = map_media(tmp_path / "two_seconds.mp4", Sampling(fps=4), lambda frame: frame.seconds)
    assert len(times) == 8
    assert np.diff(times) == pytest.approx(0.28, abs=0.05)
    every = map_media(
        tmp_path / "two_seconds.mp4", Sampling(fps=1000), lambda frame: frame.position
    )
    assert list(every) == list(range(50))


def test_only_a_bounded_number_of_crops_is_kept(tmp_path: Path) -> None:
    """A detector of faces that always finds one, so that a long film costs nothing to search."""

    class Always:
        about: dict[str, object] = {}  # noqa: RUF012

        def __call__(self, image: np.ndarray) -> list[Face]:
            side = float(image.shape[0])
            return [Face((0.0, 0.0, side, side), np.zeros((5, 2)), 1.0)]

    film(tmp_path / "long.mp4", [np.full((32, 32, 3), n % 256, np.uint8) for n in range(400)])
    sizes = []

    def score(crops: np.ndarray) -> CropScores:
        sizes.append(len(crops))
        return redness(crops)

    whole = Predictor(
        score, Always(), CropSettings(align=False), sampling=Sampling(None), batch_size=16
    )
    found = whole.predict(tmp_path / "long.mp4")
    assert len(found.frames) == 400 == sum(sizes)
    assert max(sizes) == 16
    assert len(found.suspicious) <= KEPT
    scores = [face.frame.score for face in found.suspicious]
    assert scores == sorted((frame.score for frame in found.frames), reverse=True)[: len(scores)]


def test_folders_lists_and_files_are_listed_once_each(tmp_path: Path) -> None:
    inside = tmp_path / "my films" / "deep"
    inside.mkdir(parents=True)
    for name in ("a b.mp4", "ü.png", "notes.txt"):
        (inside / name).touch()
    listed = list_media([tmp_path, inside / "a b.mp4", inside / "notes.txt"])
    assert [path.name for path in listed] == ["ü.png", "a b.mp4", "notes.txt"]
    (tmp_path / "list.txt").write_text("my films/deep/a b.mp4\n\nmy films/deep/ü.png\n", "utf-8")
    assert [path.name for path in list_media(read_media_list(tmp_path / "list.txt"))] == [
        "a b.mp4",
        "ü.png",
    ]
    with pytest.raises(InputError, match="does not exist"):
        list_media([tmp_path / "missing.mp4"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no images or videos"):
        list_media([tmp_path / "nothing"])
