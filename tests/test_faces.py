import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from fmsd.cli.main import main
from fmsd.data.extraction import model_files
from fmsd.data.extraction.alignment import crop_face, similarity, template
from fmsd.data.extraction.faces import YUNET, Face, YuNet
from fmsd.data.extraction.model_files import find_model
from fmsd.data.extraction.tracking import track_faces
from fmsd.data.synthetic.faces import render
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity
from fmsd.errors import InputError
from tests.films import STILL, film, portrait, shot


def at(x: float, y: float, side: float = 40.0) -> Face:
    return Face(
        (x - side / 2, y - side / 2, side, side),
        template(int(side), 1.0) + np.array([x - side / 2, y - side / 2]),
        0.9,
    )


def followed(frames: Sequence[Sequence[Face]]) -> list[Face | None]:
    """The face of the person who covers most of a video, in each frame."""
    found = track_faces(frames)
    return [found[0].get(number) if found else None for number in range(len(frames))]


@pytest.fixture(scope="module")
def find() -> YuNet:
    return YuNet()


# ---- finding


def test_the_points_of_a_drawn_face_are_found_where_it_was_drawn(find: YuNet) -> None:
    errors = []
    for seed in range(5):
        scene = render(
            draw_identity(np.random.default_rng(seed), CONDITIONS["synthetic"]), STILL, seed, 0.0
        )
        image = cv2.resize(
            (np.clip(scene.image, 0, 1) * 255).astype(np.uint8),
            (160, 160),
            interpolation=cv2.INTER_CUBIC,
        )
        (face, *_) = find(image)
        eyes = scene.points[:2] * 160 / 64
        errors += [
            math.dist(found, drawn)
            for found, drawn in zip(face.points[:2], eyes[np.argsort(eyes[:, 0])], strict=True)
        ]
        left, top, width, height = face.box
        assert left < face.points[:, 0].min() < face.points[:, 0].max() < left + width
        assert top < face.points[:, 1].min() < face.points[:, 1].max() < top + height
    assert np.median(errors) < 8  # of 160 pixels


def test_the_largest_of_two_faces_comes_first_and_an_empty_room_has_none(find: YuNet) -> None:
    two = find(shot((400, 200), [(1, 10, 20, 90), (2, 200, 10, 180)]))
    assert len(two) == 2
    assert two[0].side > 1.5 * two[1].side
    assert two[0].centre[0] > 200 > two[1].centre[0]
    assert find(np.full((120, 160, 3), 128, np.uint8)) == []


def test_a_face_that_is_tiny_in_a_large_image_is_found_at_full_size(find: YuNet) -> None:
    image = shot((1900, 1000), [(1, 1500, 700, 60)])
    small = cv2.resize(image, (640, 337), interpolation=cv2.INTER_AREA)
    assert find(small) == []
    (face,) = find(image)
    assert abs(face.centre[0] - 1530) < 15
    assert abs(face.centre[1] - 730) < 15


def test_a_face_that_is_larger_than_the_image_is_found(find: YuNet) -> None:
    missed = 0
    for seed in range(1, 9):
        image = np.ascontiguousarray(portrait(seed, 1600)[320:-320, 320:-320])
        missed += not find._detect(image, find.side)
        (face, *_) = find(image)
        assert face.side > 480
    assert missed  # by the first search


def test_images_of_any_size_are_searched(find: YuNet) -> None:
    for size in ((1, 1), (7, 300), (33, 21), (641, 3)):
        assert find(np.zeros((*size, 3), np.uint8)) == []


def test_close_ups_are_found_whole_or_cut_at_the_forehead_or_chin(find: YuNet) -> None:
    """Faces that fill frames of any size, and heads that leave them."""
    for side in (200, 700, 1500):
        image = portrait(4, side)
        for shown in (image, image[side // 3 :], image[: 4 * side // 5], image[side // 4 :, 40:]):
            (face, *_) = find(np.ascontiguousarray(shown))
            assert face.side > 0.4 * side


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:49f0\nsize 122489\n"


def test_a_model_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\0garbage")
    for name in ("x.onnx", "absent.onnx"):
        with pytest.raises(
            InputError, match=rf"{name} is not a YuNet model.*detector\.weights=PATH"
        ):
            YuNet(str(tmp_path / name))
    (tmp_path / "pointer.onnx").write_text(POINTER)
    with pytest.raises(InputError, match=r"is a Git LFS pointer.*no YuNet model; run `git lfs"):
        YuNet(str(tmp_path / "pointer.onnx"))


def test_a_model_that_detects_nothing_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose weights are zero is read by OpenCV without a complaint."""
    model = onnx.load(find_model(YUNET))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(values), tensor.name))
    onnx.save(model, tmp_path / "blind.onnx")
    film(tmp_path / "videos/test/real/a.mp4", [portrait(1, 96)] * 2)
    film(tmp_path / "videos/test/fake/b.mp4", [portrait(1, 96)] * 2)
    out = tmp_path / "crops"
    command = ["extract", "data=folder", f"data.root={tmp_path / 'videos'}", f"out={out}"]
    command += [f"detector.weights={tmp_path / 'blind.onnx'}"]
    assert main([*command, "workers=1"]) == 2
    assert "detects no face in its test picture" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_high_confidence_may_be_required() -> None:
    """Higher than that of the test picture."""
    assert YuNet(score=0.99)(portrait(1, 160)) == []


def test_the_model_is_fetched_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = find_model(YUNET).read_bytes()
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    model = YUNET._replace(url=(tmp_path / "zoo.onnx").as_uri())
    with pytest.raises(
        InputError, match=r"cannot be fetched .*pip install 'fmsd\[faces\]'.*detector\.weights=PATH"
    ):
        find_model(model)
    (tmp_path / "zoo.onnx").write_bytes(original + b"!")
    with pytest.raises(InputError, match="expected hash"):
        find_model(model)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())
    (tmp_path / "zoo.onnx").write_bytes(original)
    assert find_model(model) == tmp_path / "cache" / YUNET.name
    (tmp_path / "zoo.onnx").unlink()
    assert find_model(model) == tmp_path / "cache" / YUNET.name


# ---- following


def test_one_person_is_followed_past_another(find: YuNet) -> None:
    """Two people walk; the one who is larger all in all is followed, also where the other is nearer
    to the camera for a moment.
    """
    first = [at(20.0 + 10 * place, 50) for place in range(8)]
    second = [at(200.0 - 10 * place, 150, 60 if place == 3 else 32) for place in range(8)]
    frames = [
        [one, two] if place % 2 else [two, one]
        for place, (one, two) in enumerate(zip(first, second, strict=True))
    ]
    assert followed(frames) == first


def test_frames_in_which_the_person_is_not_seen_have_none() -> None:
    person, other = [at(50.0, 50, 60)] * 6, at(220.0, 60, 50)
    frames = [[person[0]], [], [other], [person[3], other], [], [person[5]]]
    assert followed(frames) == [
        person[0],
        None,
        None,
        person[3],
        None,
        person[5],
    ]
    assert followed([[], []]) == [None, None]
    assert followed([]) == []


def test_each_person_is_a_track_the_one_who_covers_most_first() -> None:
    first, second = (
        [at(50.0 + place, 50, 60) for place in range(6)],
        [at(220.0 - place, 60, 40) for place in range(3)],
    )
    third = at(140, 150, 20)
    assert track_faces(
        [[one] if place > 2 else [one, second[place]] for place, one in enumerate(first)]
        + [[third]]
    ) == [
        dict(enumerate(first)),
        dict(enumerate(second)),
        {6: third},
    ]


def test_a_person_may_come_nearer_but_not_jump() -> None:
    nearer = [at(100, 100, 40 * 1.5**place) for place in range(4)]
    assert followed([[face] for face in nearer]) == nearer
    assert followed([[at(30, 30)], [at(30, 30)], [at(300, 30)]])[2] is None


def naive_tracks(frames: Sequence[Sequence[Face]]) -> list[list[tuple[int, Face]]]:
    """Tracks by their definition: of all pairs of track and face, the best first."""
    tracks: list[list[tuple[int, Face]]] = []
    for number, shown in enumerate(frames):
        pairs = []
        for track in tracks:
            _, last = track[-1]
            for face in shown:
                far = math.dist(last.centre, face.centre) / ((last.side + face.side) / 2)
                growth = abs(math.log2(face.side / last.side))
                if far <= 2 and growth < 1:
                    pairs.append((far + growth, len(pairs), track, face))
        taken = []
        for *_, track, face in sorted(pairs, key=lambda pair: pair[:2]):
            if track[-1][0] != number and not any(face is other for other in taken):
                track.append((number, face))
                taken.append(face)
        tracks += [[(number, face)] for face in shown if not any(face is other for other in taken)]
    return sorted(tracks, key=lambda track: -sum(face.side**2 for _, face in track))


@pytest.mark.parametrize("seed", range(5))
def test_tracks_are_those_of_the_definition_in_a_crowd(seed: int) -> None:
    generator = np.random.default_rng(seed)
    frames = [
        [
            at(
                30.0 * generator.integers(12),
                30.0 * generator.integers(12),
                float(generator.choice([20, 30, 45])),
            )
            for _ in range(generator.integers(0, 8))
        ]
        for _ in range(60)
    ]
    expected = naive_tracks(frames)
    found = track_faces(frames)
    assert [[(number, id(face)) for number, face in track.items()] for track in found] == [
        [(number, id(face)) for number, face in track] for track in expected
    ]


# ---- cutting out


def test_a_similarity_is_recovered_and_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 2)) * 50
    for angle, scale in ((0.3, 2.0), (-2.0, 0.2)):
        turn = scale * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        matrix = similarity(source, source @ turn.T + [7, -3])
        assert np.allclose(matrix, np.column_stack([turn, [7, -3]]))
    target = rng.normal(size=(5, 2)) * 50
    rows = np.concatenate(
        [
            np.column_stack([source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)]),
            np.column_stack([source[:, 1], source[:, 0], np.zeros(5), np.ones(5)]),
        ]
    )
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    assert np.allclose(similarity(source, target), [[a, -b, x], [b, a, y]])


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.5, 0.7), (-0.4, 5.0)])
def test_an_aligned_crop_has_the_points_at_the_template(angle: float, scale: float) -> None:
    """Dots at the five points of a rotated, scaled face lie at the template's points."""
    turn = scale * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    points = (template(200, 1.3) - 100) @ turn.T + 600
    image = np.zeros((1200, 1200, 3), np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), max(2, round(3 * scale)), (255, 255, 255), -1)
    cut = crop_face(image, Face((0, 0, 1, 1), points, 1.0), 200, 1.3, align=True)
    count, _, _, centres = cv2.connectedComponentsWithStats((cut[..., 0] > 100).astype(np.uint8))
    assert count == 6
    for place in template(200, 1.3):
        assert min(math.dist(place, centre) for centre in centres[1:]) < 1.5


def test_a_large_face_is_shrunk_without_aliasing() -> None:
    checks = np.indices((1600, 1600)).sum(0) % 2 * 255
    image = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    face = Face((0, 0, 1600, 1600), template(1600, 1.3), 1.0)
    for align in (True, False):
        cut = crop_face(image, face, 128, 1.3, align)[40:90, 40:90]
        assert abs(cut.mean() - 127.5) < 2
        assert cut.std() < 3


def test_a_plain_crop_is_the_box_with_its_margin_and_black_outside_of_the_image() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    face = Face((50, 50, 50, 40), template(50, 1.0) + 50, 1.0)
    cut = crop_face(image, face, 60, 1.2, align=False)
    assert cut.shape == (60, 60, 3)
    assert (cut[:30, :30] == 200).all()
    assert (cut[:, 58:] == 0).all()
    shift = np.zeros((100, 100, 3), np.uint8)
    shift[70, 75] = 255
    dot = np.argwhere(crop_face(shift, face, 60, 1.2, align=False)[..., 0] > 60)
    assert np.allclose(dot.mean(0), [30, 30], atol=1)


def test_a_margin_shrinks_the_face_in_the_crop() -> None:
    tight, wide = template(256, 1.0), template(256, 2.0)
    assert np.allclose((tight - 128) / 2, wide - 128)
