"""From files to scores: persons, outcomes, bounded memory, and the frames that are taken."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmsd.data.extraction.faces import Face, YuNet
from fmsd.data.extraction.frames import process_frames
from fmsd.data.extraction.recipe import Recipe, encode_crop
from fmsd.data.extraction.video import Sample
from fmsd.data.loading.image import read_image
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropScores, CropSettings
from fmsd.inference.kept_crops import KEPT
from fmsd.inference.media import Sampling, list_media, map_media, read_media_list
from fmsd.inference.outcome import FilePrediction, FrameScore
from fmsd.inference.predictor import Predictor, person_scores
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


@pytest.mark.parametrize(
    ("changes", "crops"),
    [
        ({}, CropSettings()),
        ({"format": "jpg", "quality": 20, "size": 96}, CropSettings(96, format="jpg", quality=20)),
    ],
)
def test_crops_are_those_of_the_extraction(
    changes: dict[str, object], crops: CropSettings, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), shot((400, 200), [(2, 200, 10, 180)])[..., ::-1])
    recipe = Recipe(**changes)  # pyright: ignore[reportArgumentType]
    _, made = process_frames(None, [(0, tmp_path / "0.png")], YuNet(), recipe)
    ((name, pixels),) = made.items()
    (tmp_path / name).write_bytes(encode_crop(pixels, recipe.format, recipe.quality))
    (face,) = predictor(crops=crops).predict(tmp_path / "0.png").suspicious
    assert np.array_equal(face.crop, read_image(tmp_path / name))
    assert np.array_equal(face.crop, pixels) == (recipe.format == "png")


def test_faces_that_the_training_data_leave_out_for_their_size_are_no_faces(
    tmp_path: Path,
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), shot((400, 200), [(2, 200, 10, 180)])[..., ::-1])
    small, whole = CropSettings(min_face=190), CropSettings(min_face=30)
    assert predictor(crops=small).predict(tmp_path / "a.png").status == "no face"
    assert predictor(crops=whole).predict(tmp_path / "a.png").status == "scored"


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


def test_a_list_holds_every_name_that_a_disk_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    names = ["a\u2028b.mp4", "c\x85d.png", "e\x0bf\x0cg.png", " h.png"]
    content = "\ufeff" + "\r\n".join([*names, "", "~/i.png", "~nobody0/j.png", "last\r.png"])
    content = content.replace("~/i", "# a comment\r\n~/i") + "\n\n#not.png\n./#yes.png\n"
    (tmp_path / "list.txt").write_bytes(content.encode())
    assert read_media_list(tmp_path / "list.txt") == [
        *(tmp_path / name for name in names),
        Path("/home/me/i.png"),
        tmp_path / "~nobody0/j.png",
        tmp_path / "last\r.png",
        tmp_path / "#yes.png",
    ]
    missing = tmp_path / "gone.png"
    assert list_media([], [missing]) == [missing]
    found = predictor().predict(missing)
    assert (found.status, found.message) == (
        "unreadable",
        f"{missing} does not exist; correct the path.",
    )


def test_a_folder_s_files_that_cannot_be_read_are_outcomes(tmp_path: Path) -> None:
    films = tmp_path / "films"
    (films / "deep").mkdir(parents=True)
    cv2.imwrite(str(films / "good.png"), walk(1)[0])
    for name in ("phone.HEIC", "camera.braw", "notes.txt", ".hidden.png"):
        (films / name).touch()
    (films / "link").symlink_to("gone")
    (films / "deep" / "back").symlink_to(films)
    (films / "good.png").rename(os.fsdecode(os.fsencode(films) + b"/caf\xe9.png"))
    cv2.imwrite(str(films / "deep" / "good.png"), walk(1)[0])
    found = {
        Path(each.path).name: each.message or each.status
        for each in predictor().predict_each(list_media([films]))
    }
    assert found == {
        "phone.HEIC": f"{films}/phone.HEIC is of a format that is not read; "
        "convert it to PNG or JPEG.",
        "camera.braw": f"{films}/camera.braw is of a format that is not read; convert it to MP4.",
        "link": f"{films}/link is a link to nothing; give an image or a video.",
        r"caf\xe9.png": rf"The name of {films}/caf\xe9.png is not UTF-8; rename it, or the folder "
        "above it whose name is not.",
        "good.png": "scored",
    }


def test_a_batch_holds_faces_of_several_files(tmp_path: Path) -> None:
    sizes = list[int]()

    def score(crops: np.ndarray) -> CropScores:
        sizes.append(len(crops))
        return redness(crops)

    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), shot((200, 200), [(number, 20, 20, 150)])[..., ::-1])
    files[3].write_text("no picture")
    cv2.imwrite(str(files[5]), np.full((100, 100, 3), 90, np.uint8))
    together = list(Predictor(score, YuNet(), batch_size=4).predict_each(files))
    assert sizes == [4, 4]
    assert [each.path for each in together] == [str(file) for file in files]
    alone = [predictor().predict(file) for file in files]
    assert [(each.status, each.persons) for each in together] == [
        (each.status, each.persons) for each in alone
    ]
    assert [each.status for each in together].count("scored") == 8


class Boxes:
    """A detector of faces that finds the bright columns of an image, each as a face."""

    about: dict[str, object] = {}  # noqa: RUF012

    def __call__(self, image: np.ndarray) -> list[Face]:
        lit = np.flatnonzero(image[0, :, 0] > 60)
        return [
            Face((float(left), 0.0, 8.0, 8.0), np.zeros((5, 2)), 1.0) for left in lit[lit % 32 == 0]
        ]


def test_who_decides_is_shown_whatever_the_scores_of_those_who_do_not_count(
    tmp_path: Path,
) -> None:
    """40 passers-by with the highest scores, one after the other, and one who stays."""
    images = np.zeros((200, 8, 32 * 42, 3), np.uint8)
    images[:, :, :8] = 90
    for number in range(40):
        images[5 * number : 5 * number + 5, :, 32 * (number + 2) :][:, :, :8] = 200
    frames = [Sample(place, place / 25, image) for place, image in enumerate(images)]
    seen = Predictor(redness, Boxes(), CropSettings(8, 1.0, align=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "fmsd.inference.predictor.map_media",
            # the first attempt to decode ends early, as where frames differ from the index
            lambda path, sampling, look: [look(each) for each in (*frames[:50], *frames)],
        )
        (tmp_path / "a.mp4").touch()
        found = seen.predict(tmp_path / "a.mp4")
    assert (found.sampled, len(found.frames), len(found.persons)) == (200, 400, 41)
    assert found.decides == found.persons[0]
    assert [face.frame.person for face in found.suspicious] == [1] * 8
    own = [frame.score for frame in found.frames if frame.person == 1]
    assert [face.frame.score for face in found.suspicious] == sorted(own, reverse=True)[:8]
