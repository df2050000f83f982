"""Dense landmarks: found by MediaPipe, kept beside the crops, read for self-blending."""

import importlib.util
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmsd.cli.main import main
from fmsd.data.extraction.alignment import template
from fmsd.data.extraction.crops import extract_video
from fmsd.data.extraction.face_landmarks import (
    RELEASE,
    FaceLandmarks,
    build_face_landmarks,
    distinct_faces,
)
from fmsd.data.extraction.faces import Face, YuNet
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.loading.blending import BELOW_FOREHEAD, MESH, face_outlines, hull_mask
from fmsd.errors import InputError
from tests.films import film, portrait, shot


class Ringed:
    """A detector whose faces have landmarks on a circle around their centre."""

    about = {"name": "ringed"}  # noqa: RUF012

    def __init__(self) -> None:
        self.find = YuNet()

    def __call__(self, image: np.ndarray) -> list[Face]:
        angles = np.linspace(0, 2 * math.pi, MESH, endpoint=False)
        ring = np.column_stack([np.cos(angles), np.sin(angles)])
        return [
            face._replace(landmarks=face.points.mean(0) + 0.4 * face.side * ring)
            for face in self.find(image)
        ]


def test_dense_landmarks_lie_beside_the_crops_in_their_pixels_and_mask_the_face(
    tmp_path: Path,
) -> None:
    (tmp_path / "work").mkdir()
    video = film(tmp_path / "a.mp4", [shot((320, 160), [(1, 10, 10, 140), (2, 200, 40, 100)])] * 2)
    source = SourceVideo("m/real/a", video, (), 0, "m", "real", "train", "")
    recipe = Recipe(size=128, faces="all")
    for _ in range(2):  # also in place of earlier ones
        extract_video(source, Ringed(), recipe, tmp_path / "out", tmp_path / "work")
    folder = tmp_path / "out/m/real/a"
    assert {path.name for path in folder.iterdir()} == {
        "video.json",
        *(f"00000{n}{tail}" for n in (0, 1) for tail in (".png", ".landmarks.npy")),
        *(f"00000{n}_2{tail}" for n in (0, 1) for tail in (".png", ".landmarks.npy")),
    }
    for line in json.loads((folder / "video.json").read_text())["frames"]:
        whole, _ = face_outlines(folder / line["file"], 128, 128)
        assert len(whole) == MESH
        assert whole.mean(0) == pytest.approx(template(128, 1.3).mean(0), abs=1)
        assert hull_mask(whole, 128, 128).mean() > 0.2


@pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is not None, reason="mediapipe is installed"
)
def test_without_the_package_the_line_that_installs_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    command = ["extract", "data=folder", f"data.root={tmp_path / 'data'}", "detector=mediapipe"]
    assert main([*command, f"out={tmp_path / 'out'}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"install it with pip install --no-deps mediapipe=={RELEASE}" in error


def test_a_face_inside_of_another_is_the_same() -> None:
    def face(left: float, side: float) -> Face:
        return Face((left, 0, side, side), template(int(side), 1.0), None)

    large, inside, beside = face(0, 100), face(20, 50), face(90, 60)
    assert distinct_faces([inside, beside, large]) == [large, beside]


# ---- with the package


@pytest.fixture(scope="module")
def landmarks(real_data: Path) -> FaceLandmarks:
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    return build_face_landmarks(str(real_data / "detectors/face_landmarker.task"))


def test_mediapipe_finds_what_yunet_finds(landmarks: FaceLandmarks, real_data: Path) -> None:
    find = YuNet()
    paths = sorted((real_data / "faces/uadfv/real").glob("*/*.jpg"))[::60]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    small = np.full((480, 854, 3), 100, np.uint8)
    small[40:140, 600:700] = cv2.resize(images[0], (100, 100), interpolation=cv2.INTER_AREA)
    for image in [*images, small, portrait(1, 256)]:
        (one, *_), (other, *_) = landmarks(image), find(image)
        assert one.landmarks is not None
        assert one.landmarks.shape == (MESH, 2)
        assert np.abs(one.points - other.points).max() < 0.15 * other.side
        outlines = [hull_mask(face, *image.shape[:2]).sum() for face in mesh_outlines(one)]
        assert 0.3 < outlines[1] / outlines[0] < 0.95
    assert landmarks(np.full((120, 160, 3), 128, np.uint8)) == []


def mesh_outlines(face: Face) -> list[np.ndarray]:
    assert face.landmarks is not None
    return [face.landmarks, face.landmarks[BELOW_FOREHEAD]]


def test_a_file_that_is_no_bundle_is_refused(landmarks: FaceLandmarks, tmp_path: Path) -> None:
    (tmp_path / "pointer.task").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="is a Git LFS pointer"):
        build_face_landmarks(str(tmp_path / "pointer.task"))
    (tmp_path / "x.task").write_bytes(b"\0garbage")
    with pytest.raises(InputError, match=r"x\.task is not a MediaPipe Face Landmarker model"):
        build_face_landmarks(str(tmp_path / "x.task"))
