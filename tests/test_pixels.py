"""From decoded frames to pixels: colours, high dynamic range, the shape of pixels, turns and
mirrors, each against a formula or FFmpeg itself.
"""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest

from fmsd.data.extraction.crops import process_video
from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.hdr import (
    HDR_PEAK,
    SDR_WHITE,
    bt2390_eetf,
    hlg_inverse_oetf,
    pq_eotf,
    pq_inverse_eotf,
    tone_map,
)
from fmsd.data.extraction.outcomes import picture_warnings, summarize_record
from fmsd.data.extraction.pixels import apply_display_matrix
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.extraction.video import sample_video
from fmsd.errors import InputError
from tests.films import film, tagged, turned, walk

BARS = np.array([[r, g, b] for r, g, b in itertools.product((40, 128, 215), repeat=3)], np.float64)
"""Colours as RGB in 8 bits, far enough from the ends that none is clipped."""

MATRICES = {"601": (0.299, 0.114, 6), "709": (0.2126, 0.0722, 1), "2020": (0.2627, 0.0593, 9)}
"""Weights of red and blue (ITU-R BT.601, BT.709, BT.2020), and the matrix's number in H.273."""


def coded(rgb: np.ndarray, matrix: str, full: bool, bits: int) -> np.ndarray:
    """Y, Cb and Cr by the formulas of the recommendation; RGB from 0 to 1."""
    red, blue, _ = MATRICES[matrix]
    luma = rgb @ [red, 1 - red - blue, blue]
    components = np.stack(
        [luma, (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)], -1
    )
    step = 2 ** (bits - 8)
    top = np.array([2**bits - 1] * 3 if full else [219 * step, 224 * step, 224 * step])
    return np.rint(components * top + np.array([0 if full else 16, 128, 128]) * step)


def bars(rgb: np.ndarray) -> np.ndarray:
    """Colours as squares of 16 pixels beside each other."""
    return np.repeat(np.repeat(rgb[None], 16, 0), 16, 1)


def centres(image: np.ndarray) -> np.ndarray:
    """The colours of bars."""
    return image[8, 8::16].astype(np.float64)


@pytest.mark.parametrize("full", [False, True], ids=["studio", "full"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colour_bars_of_each_matrix_and_range_come_back(
    tmp_path: Path, matrix: str, bits: int, full: bool
) -> None:
    components = coded(bars(BARS / 255), matrix, full, bits)
    path = tagged(tmp_path / "bars.mkv", [components], bits, space=MATRICES[matrix][2], full=full)
    (sample,) = sample_video(path, 1)
    assert sample.image is not None
    assert np.abs(centres(sample.image) - BARS).max() <= 3


@pytest.mark.parametrize("transfer", [1, 9, 10, 11])
def test_a_transfer_function_of_sdr_changes_nothing_even_one_that_swscale_does_not_know(
    tmp_path: Path, transfer: int
) -> None:
    """BT.709, two logarithmic ones and xvYCC."""
    path = tagged(
        tmp_path / "bars.mkv",
        [coded(bars(BARS / 255), "709", False, 8)],
        8,
        space=1,
        transfer=transfer,
    )
    (sample,) = sample_video(path, 1)
    assert sample.image is not None
    assert sample.picture is not None
    assert sample.picture.hdr is None
    assert np.abs(centres(sample.image) - BARS).max() <= 3


def test_frames_without_colour_tags_are_what_they_always_were(tmp_path: Path) -> None:
    path = film(tmp_path / "plain.mp4", walk(2))
    (sample, _) = sample_video(path, 2)
    with av.open(path) as container:
        frame = next(container.decode(video=0))
    assert sample.image is not None
    assert np.array_equal(sample.image, frame.to_ndarray(format="rgb24"))
    assert sample.picture == (Fraction(1), None, False, (1.0, 1.0))


def test_a_matrix_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    path = tagged(
        tmp_path / "ictcp.mkv",
        [coded(bars(BARS / 255), "2020", False, 10)],
        10,
        space=14,
        transfer=16,
    )
    with pytest.raises(
        InputError,
        match=r"colours of the video \(pixel format yuv444p10le, matrix 14 of ITU-T H\.273\) "
        r"cannot be converted",
    ):
        list(sample_video(path, 1))


# ---- high dynamic range

LIGHT = np.array([0.0, 0.5, 2, 10, 30, 60, 80])
"""cd/m2 below the knee."""


def test_the_curves_have_the_published_values() -> None:
    """ITU-R BT.2100 and BT.2408: reference white is at 58 % of PQ and 75 % of HLG, 1000 cd/m2 at 75
    %; HLG has 1/12 of the light at a half.
    """
    assert pq_eotf(np.array([0.0, 1.0])).tolist() == pytest.approx([0, 10000])
    assert pq_inverse_eotf(np.array([100.0, 203, 1000])) == pytest.approx(
        [0.508, 0.581, 0.752], abs=5e-4
    )
    assert np.allclose(pq_eotf(pq_inverse_eotf(LIGHT)), LIGHT)
    assert hlg_inverse_oetf(np.array([0, 0.5, 1])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert HDR_PEAK * hlg_inverse_oetf(np.array([0.75]))[0] ** 1.2 == pytest.approx(
        SDR_WHITE, rel=0.01
    )


def test_the_tone_curve_keeps_what_is_dark_and_rises_smoothly_to_white() -> None:
    light = pq_eotf(np.linspace(0, 1, 2000))
    out = bt2390_eetf(light)
    assert np.allclose(out[light < 87], light[light < 87])
    assert (np.diff(out) >= -1e-9).all()
    assert out[-1] == pytest.approx(SDR_WHITE)
    slope = np.diff(pq_inverse_eotf(out)) / np.diff(pq_inverse_eotf(light))
    assert np.abs(np.diff(slope[light[1:] < 900])).max() < 0.02


@pytest.mark.parametrize(("kind", "transfer"), [("pq", 16), ("hlg", 18)])
def test_hdr_video_gives_the_colours_that_sdr_would(
    tmp_path: Path, kind: str, transfer: int
) -> None:
    """Colours of BT.709 on a display of BT.1886 with white at 203 cd/m2, coded as HDR: those that
    are dark enough come back.
    """
    rgb = BARS[(BARS <= 128).all(1)]
    light = SDR_WHITE * (rgb / 255) ** 2.4
    wide = (
        light
        @ np.linalg.inv(
            [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
        ).T
    )
    if kind == "pq":
        signal = pq_inverse_eotf(np.maximum(wide, 0))
    else:
        luminance = (wide @ [0.2627, 0.6780, 0.0593])[:, None] / HDR_PEAK
        scene = wide / HDR_PEAK * luminance ** (1 / 1.2 - 1)
        signal = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * np.maximum(scene, 0)),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    path = tagged(
        tmp_path / "hdr.mkv",
        [coded(bars(signal), "2020", False, 10)],
        10,
        space=9,
        transfer=transfer,
    )
    (sample,) = sample_video(path, 1)
    assert sample.image is not None
    assert sample.picture is not None
    assert sample.picture.hdr == kind
    assert np.abs(centres(sample.image) - rgb).max() <= 6


FFMPEG = {
    (10, 10, 10): (73, 73, 73),
    (40, 40, 40): (129, 129, 129),
    (80, 80, 80): (173, 173, 173),
    (60, 40, 30): (168, 127, 110),
    (75, 50, 38): (183, 139, 123),
    (30, 18, 12): (128, 90, 74),
    (12, 14, 30): (70, 86, 120),
}
"""What the filter scale=out_transfer=bt709:out_primaries=bt709:intent=relative_colorimetric of
FFmpeg 8.1 makes of light (cd/m2, BT.2020) as PQ.
It takes eight seconds for its table, and is recorded here; greys and colours of skin."""


def test_hdr_is_mapped_as_ffmpeg_maps_it_below_the_knee(tmp_path: Path) -> None:
    signal = pq_inverse_eotf(np.array(list(FFMPEG), float))
    (sample,) = sample_video(
        tagged(
            tmp_path / "hdr.mkv", [coded(bars(signal), "2020", False, 10)], 10, space=9, transfer=16
        ),
        1,
    )
    assert sample.image is not None
    assert np.abs(centres(sample.image) - np.array(list(FFMPEG.values()))).max() <= 3


def test_highlights_are_told_apart_and_keep_their_hue() -> None:
    signal = np.rint(
        65535
        * pq_inverse_eotf(
            np.array([[[203.0] * 3, [400.0] * 3, [900.0] * 3, [4000.0] * 3, [400.0, 200, 200]]])
        )
    )
    grey, brighter, brightest, beyond, red = tone_map(signal.astype(np.uint16), "pq", primaries=1)[
        0
    ].astype(int)
    assert 220 < grey[0] < brighter[0] < brightest[0] <= beyond[0] == 255
    assert np.ptp([grey, brighter, brightest], axis=1).max() == 0
    assert (red[1] / red[0]) ** 2.4 == pytest.approx(0.5, abs=0.02)


# ---- shape, turns and mirrors


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("2:1", (240, 320)),
        ("1:2", (480, 160)),
        ("64:45", (240, 228)),
        ("1001:1000", (240, 160)),
        ("0:1", (240, 160)),
    ],
)
def test_pixels_that_are_not_square_are_squared(
    tmp_path: Path, shape: str, size: tuple[int, int]
) -> None:
    """A circle, squashed as such a file stores it, is one again."""
    ratio = Fraction(shape.replace(":", "/")) or Fraction(1)
    x, y = np.meshgrid(np.arange(160) - 79.5, np.arange(240) - 119.5)
    disc = ((x * max(ratio, 1)) ** 2 + (y * max(1 / ratio, 1)) ** 2 < 70**2).astype(np.uint8) * 200
    path = film(tmp_path / "squashed.mp4", [np.repeat(disc[..., None], 3, 2)] * 2, shape=shape)
    (sample,) = sample_video(path, 1)
    assert sample.image is not None
    assert sample.image.shape == (*size, 3)
    inside = np.argwhere(sample.image[..., 1] > 100)
    assert np.ptp(inside, axis=0) == pytest.approx([139, 139], abs=3)
    assert sample.picture is not None
    assert sample.picture.aspect == (1 if abs(ratio - 1) < 0.01 else ratio)


def test_pixels_of_an_impossible_shape_are_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "hostile.mp4", walk(2), shape="20:1")
    with pytest.raises(
        InputError, match=r"hostile\.mp4 declares pixels of the shape 20:1; correct its header"
    ):
        list(sample_video(path, 1))


def test_a_turned_video_of_oblong_pixels_is_squared_before_it_is_turned(tmp_path: Path) -> None:
    (sample,) = sample_video(turned(film(tmp_path / "both.mp4", walk(2), shape="2:1")), 1)
    assert sample.image is not None
    assert sample.image.shape == (384, 128, 3)
    assert sample.picture is not None
    assert sample.picture.grown == (1.0, 2.0)


@pytest.mark.parametrize(
    "matrix",
    [((a, 0), (0, d)) for a in (1, -1) for d in (1, -1)]
    + [((0, b), (c, 0)) for b in (1, -1) for c in (1, -1)],
)
def test_all_eight_turns_and_mirrors_put_each_pixel_where_the_matrix_says(
    matrix: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 4] = 255
    moved = (np.array([4, 1]) - np.array([2.5, 1.5])) @ np.array(matrix)  # from the middle
    shown = apply_display_matrix(image, np.array(matrix, float))
    height, width, _ = shown.shape
    (place,) = np.argwhere(shown[..., 0])
    assert (place[::-1] - np.array([(width - 1) / 2, (height - 1) / 2])).tolist() == moved.tolist()


def test_a_quarter_turn_does_not_mirror(tmp_path: Path) -> None:
    """A mark at the top left of a stored frame is at the top right after a quarter to the right."""
    image = np.full((64, 96, 3), 50, np.uint8)
    image[:16, :32] = 250
    (sample,) = sample_video(turned(film(tmp_path / "phone.mp4", [image] * 2)), 1)
    assert sample.image is not None
    assert sample.image.shape == (96, 64, 3)
    assert np.argwhere(sample.image[..., 1] > 150).mean(0) == pytest.approx([15.5, 55.5], abs=1)


# ---- as FFmpeg's own filters convert


Size = tuple[int, int]


def waves(width: int, height: int) -> np.ndarray:
    """A smooth picture of many colours."""
    y, x = np.mgrid[:height, :width] / 64
    return np.stack([np.sin(3 * x + 1), np.cos(2 * y + x), np.sin(2 * x - 3 * y)], -1) * 80 + 128


def coded_clip(path: Path, codec: str, form: str, space: int, span: int, size: Size) -> Path:
    """A clip whose frames declare matrix and range (numbers of H.273 and FFmpeg)."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, 25, options=CODECS[codec])
        stream.width, stream.height = size
        stream.pix_fmt = form
        context = stream.codec_context
        context.colorspace, context.color_range = space, span
        frame = av.VideoFrame.from_ndarray(waves(*size).round().astype(np.uint8), format="rgb24")
        frame = frame.reformat(format=form, dst_colorspace=5, dst_color_range=span)
        frame.colorspace, frame.color_range = space, span
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def filtered(path: Path, matrix: str, span: str) -> np.ndarray:
    """The first frame by FFmpeg's filter graph with explicit matrices and ranges."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        options = f"in_color_matrix={matrix}:in_range={span}:out_range=pc"
        steps = [
            graph.add_buffer(template=stream),
            graph.add("scale", f"{options}:flags=bicubic+accurate_rnd+full_chroma_int"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        for one, other in itertools.pairwise(steps):
            one.link_to(other)
        graph.configure()
        graph.push(next(container.decode(stream)))
        frame = graph.pull()
        assert isinstance(frame, av.VideoFrame)
        return frame.to_ndarray()


CODECS = {
    "libx264": {"qp": "4"},
    "libx265": {"x265-params": "qp=6:log-level=none"},
    "libvpx-vp9": {"crf": "4"},
    "ffv1": {},
}
FORMS = [
    ("libx264", "yuv420p", (64, 48), "a.mp4"),
    ("libx264", "yuv422p10le", (64, 48), "a.mkv"),
    ("libx265", "yuv420p10le", (64, 48), "a.mp4"),
    ("libvpx-vp9", "yuv420p", (65, 49), "a.webm"),
    ("ffv1", "yuv420p", (65, 49), "a.mkv"),
    ("ffv1", "yuv420p10le", (63, 47), "a.mkv"),
    ("ffv1", "yuv444p12le", (65, 49), "a.mkv"),
]
SPACES = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
"""Matrices by their number in H.273; an undeclared one is FFmpeg's default."""


@pytest.mark.parametrize(("codec", "form", "size", "name"), FORMS)
def test_colours_are_those_of_ffmpeg_s_filters_with_explicit_matrices_and_ranges(
    tmp_path: Path, codec: str, form: str, size: Size, name: str
) -> None:
    """Within two grey levels on average; another matrix or range is farther off."""
    for space, span in itertools.product(SPACES, (1, 2)):
        path = coded_clip(tmp_path / name, codec, form, space, span, size)
        (sample,) = sample_video(path, 1)
        assert sample.image is not None
        right = filtered(path, SPACES[space], ("tv", "pc")[span - 1]).astype(int)
        assert sample.image.shape == right.shape == (size[1], size[0], 3)
        apart = np.abs(sample.image - right)
        assert apart.max() <= 8
        assert apart.mean() <= 2.2
        other = "bt601" if space in (1, 7) else "bt709"
        for matrix, declared in ((other, span), (SPACES[space], 3 - span)):
            if declared == 1 and span == 2 and form == "yuv420p":
                continue  # decoded as yuvj420p, which FFmpeg takes for full range in any case
            wrong = filtered(path, matrix, ("tv", "pc")[declared - 1])
            assert np.abs(sample.image - wrong.astype(int)).mean() > apart.mean() + 0.4


def test_an_interlaced_film_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 25, options={"x264-params": "tff=1"})
        stream.height, stream.width, stream.pix_fmt = 128, 192, "yuv420p"
        for number, image in enumerate(walk(4)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = SourceVideo("a", path, (), 1, "mine", "swap", "test", "")
    record, _ = process_video(source, YuNet(), Recipe())
    assert record["picture"]["interlaced"]
    (said, *_) = picture_warnings([summarize_record(record, Recipe())])
    assert said.startswith("Interlaced: in 1 of 1 videos, a among them")
