import functools
import gc
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fmsd.data import processes
from fmsd.data.extraction.opening import open_video
from fmsd.data.extraction.video import map_frames, read_index, sample_video
from fmsd.errors import InputError
from tests.films import bitten, film, sound, turned, walk


@functools.cache
def moving() -> list[np.ndarray]:
    """40 small images, all different."""
    return walk(40, size=(96, 64), side=48)


def decoded(path: Path) -> list[np.ndarray]:
    """The naive reference: every frame of the file, one after the other."""
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def holds_to_the_whole(path: Path, counts: Sequence[int | None] = (1, 2, 5, 40, None)) -> int:
    """Asserts that samples are evenly spread frames of the whole decoded file, whose length it
    returns.
    """
    whole = decoded(path)
    for count in counts:
        samples = list(sample_video(path, count))
        taken = min(count or len(whole), len(whole))
        assert [sample.position for sample in samples] == np.linspace(
            0, len(whole) - 1, taken
        ).round().astype(int).tolist()
        for sample in samples:
            assert sample.image is not None
            assert np.array_equal(sample.image, whole[sample.position])
    return len(whole)


X265 = "log-level=none:scenecut=0"

FILMS: list[tuple[str, str, dict[str, str]]] = [
    ("whole.mp4", "libx264", {}),
    ("groups.mp4", "libx264", {"g": "7", "bf": "2"}),
    ("short.mp4", "libx264", {"g": "2", "bf": "2"}),
    (
        "leading.mp4",
        "libx264",
        {"bf": "3", "x264-params": "open-gop=1:keyint=7:scenecut=0:b-adapt=0"},
    ),
    ("refreshed.mp4", "libx264", {"g": "7", "intra-refresh": "1"}),
    ("part2.mp4", "mpeg4", {"g": "7", "bf": "2"}),
    ("groups.mov", "libx264", {"g": "7", "bf": "2"}),
    ("pictures.mov", "mjpeg", {}),
    ("modern.mp4", "libsvtav1", {"g": "7", "preset": "13"}),
    ("stream.mkv", "libx264", {"g": "12"}),
    ("leading.mkv", "libx265", {"x265-params": f"{X265}:open-gop=1:keyint=7"}),
    ("groups8.webm", "libvpx", {"g": "7", "deadline": "realtime", "cpu-used": "8"}),
    ("groups.webm", "libvpx-vp9", {"g": "7", "deadline": "realtime", "cpu-used": "8"}),
    ("whole.avi", "libx264", {"g": "60"}),
    ("groups.avi", "libx264", {"g": "7", "bf": "2"}),
    ("old.avi", "mpeg4", {"g": "5", "bf": "2"}),
    ("whole.ts", "libx264", {"g": "60"}),
    ("groups.ts", "libx264", {"g": "7", "bf": "2"}),
    ("whole265.ts", "libx265", {"x265-params": f"{X265}:keyint=60"}),
    ("groups265.ts", "libx265", {"x265-params": f"{X265}:keyint=7"}),
    ("groups2.ts", "mpeg2video", {"g": "7", "bf": "2"}),
    ("whole1.mpg", "mpeg1video", {"g": "60", "bf": "2"}),
    ("groups1.mpg", "mpeg1video", {"g": "7", "bf": "2"}),
    ("whole2.mpg", "mpeg2video", {"g": "60", "bf": "2"}),
    ("groups2.mpg", "mpeg2video", {"g": "7", "bf": "2"}),
    ("groups.flv", "libx264", {"g": "7", "bf": "2"}),
    ("old.flv", "flv", {"g": "7"}),
    ("groups.wmv", "wmv2", {"g": "7"}),
    ("mute.gif", "gif", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), FILMS, ids=[name for name, *_ in FILMS])
def test_samples_are_the_evenly_spread_frames_of_the_whole_decoded_file(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    assert holds_to_the_whole(film(tmp_path / name, moving(), codec, options=options)) == 40


def rewritten(path: Path, out: Path, change: Callable[[list[av.Packet]], list[av.Packet]]) -> Path:
    """A copy of a video file with other packets."""
    with av.open(path) as source, av.open(out, "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in change([packet for packet in source.demux(stream) if packet.size]):
            packet.stream = copy
            target.mux(packet)
    return out


def test_frames_that_are_stored_but_never_shown_are_not_counted(tmp_path: Path) -> None:
    def later(packets: list[av.Packet]) -> list[av.Packet]:
        """From the second key frame on: what is shown before it refers to frames that are gone."""
        return packets[[place for place, packet in enumerate(packets) if packet.is_keyframe][1] :]

    for codec, options in (
        ("mpeg2video", {"g": "10", "bf": "2"}),
        ("libx265", {"x265-params": f"{X265}:open-gop=1:keyint=10"}),
    ):
        path = film(tmp_path / f"{codec}.mkv", moving(), codec, options=options)
        for ending in ("mkv", "ts"):
            cut = rewritten(path, tmp_path / f"{codec}_cut.{ending}", later)
            with open_video(cut) as (container, stream):
                stored = read_index(container, stream).length
            assert holds_to_the_whole(cut) < stored
            assert [sample.position for sample in sample_video(cut, 5, "first")] == list(range(5))


def test_frames_that_only_serve_others_are_not_counted(tmp_path: Path) -> None:
    def hidden(packets: list[av.Packet]) -> list[av.Packet]:
        """Three early frames of VP8 are decoded, but not shown: a bit in their first byte."""
        copies = [
            av.Packet(bytes([data[0] & ~16 if 3 <= place < 6 else data[0]]) + data[1:])
            for place, data in enumerate(map(bytes, packets))
        ]
        for packet, copy in zip(packets, copies, strict=True):
            copy.pts, copy.dts, copy.time_base, copy.is_keyframe = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.is_keyframe,
            )
        return copies

    path = film(tmp_path / "plain.webm", moving(), "libvpx", options={"g": "10"})
    assert holds_to_the_whole(rewritten(path, tmp_path / "hidden.webm", hidden)) == 37


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "10", "bf": "2"}),
        ("libx265", {"x265-params": f"{X265}:keyint=10"}),
        ("libvpx-vp9", {"g": "10"}),
    ],
)
def test_key_frames_that_are_none_and_stamps_out_of_order_mislead_nobody(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    def keys(packets: list[av.Packet]) -> list[av.Packet]:
        for packet in packets:
            packet.is_keyframe = True
        return packets

    def stamps(packets: list[av.Packet]) -> list[av.Packet]:
        for place, packet in enumerate(packets):
            packet.pts = packet.dts = 40 * place
        return packets

    path = film(tmp_path / "right.mkv", moving(), codec, options=options)
    for ending in ("mkv", "mp4"):
        for change in (keys, stamps):
            assert (
                holds_to_the_whole(
                    rewritten(path, tmp_path / f"{change.__name__}.{ending}", change)
                )
                >= 39
            )


def test_a_broken_stream_that_was_recorded_from_its_middle_gives_what_can_be_decoded(
    tmp_path: Path,
) -> None:
    path = film(tmp_path / "broadcast.ts", moving(), "mpeg2video", options={"g": "10", "bf": "2"})
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 2 // 188 * 188 :])
    samples = list(sample_video(path, None))
    assert [sample.position for sample in samples] == list(range(len(samples)))
    assert 10 <= sum(sample.image is not None for sample in samples) < 40


NOISY = ("libx264", {"g": "8", "bf": "2"}), ("mpeg2video", {"g": "8", "bf": "2"})


@pytest.mark.parametrize(("codec", "options"), NOISY, ids=[codec for codec, _ in NOISY])
@pytest.mark.parametrize("seed", range(3))
def test_no_frame_that_damage_has_reached_is_taken_for_the_video(
    tmp_path: Path, codec: str, options: dict[str, str], seed: int
) -> None:
    """Neither the frame in which the decoder conceals the damage, nor any that is predicted from
    it; other groups of frames stay.
    """
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (96, 128, 3), np.uint8)
    path = film(
        tmp_path / "live.ts",
        [np.roll(ground, 2 * place, 1) for place in range(40)],
        codec,
        options=options,
    )
    whole = {image.tobytes() for image in decoded(path)}
    bitten(path, 0.4, seed)
    samples = list(sample_video(path, None))
    kept = [sample.image.tobytes() in whole for sample in samples if sample.image is not None]
    assert all(kept)
    assert 20 <= len(kept) < 40
    shown = [sample for sample in sample_video(path, None, keep_corrupt=True) if sample.corrupt]
    assert [sample.position for sample in shown if sample.image is not None] == [
        sample.position for sample in samples if sample.corrupt
    ]
    assert shown


@pytest.mark.slow
def test_the_real_clips_are_sampled_as_they_are_decoded(real_data: Path) -> None:
    paths = sorted((real_data / "videos").iterdir())
    assert paths
    for path in paths:
        samples = {
            sample.position: sample.image
            for sample in sample_video(path, 8)
            if sample.image is not None
        }
        length = 0
        with av.open(path) as container:
            for place, frame in enumerate(container.decode(video=0)):
                length = place + 1
                if place in samples:
                    wide = round(
                        frame.width * (container.streams.video[0].sample_aspect_ratio or 1)
                    )  # one clip is stored as 720 x 480, for 853 x 480
                    right = frame.to_ndarray(format="rgb24")
                    right = (
                        right
                        if wide == frame.width
                        else cv2.resize(right, (wide, frame.height), interpolation=cv2.INTER_CUBIC)
                    )
                    assert np.array_equal(samples[place], right), f"{path.name}, frame {place}"
        assert list(samples) == np.linspace(0, length - 1, 8).round().astype(int).tolist()


def test_frames_of_variable_rate_are_spread_by_number_and_tell_their_time(tmp_path: Path) -> None:
    stamps = [0, 4, 8, 80, 84, 300, 304, 308]
    path = film(tmp_path / "varying.mkv", walk(8), stamps=stamps)
    samples = list(sample_video(path, 8))
    assert [sample.position for sample in samples] == list(range(8))
    assert [round(sample.seconds, 2) for sample in samples] == [stamp / 100 for stamp in stamps]


def test_a_portrait_flag_turns_the_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "plain.mp4", walk(3))
    (plain, *_) = sample_video(path, 1)
    (upright, *_) = sample_video(turned(path), 1)
    assert plain.image is not None
    assert upright.image is not None
    assert upright.image.shape == (192, 128, 3)
    assert np.array_equal(upright.image, np.rot90(plain.image, -1))


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    (only,) = sample_video(film(tmp_path / "one.mp4", walk(1)), 32)
    assert only.position == 0
    assert only.image is not None


def test_names_with_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    path = film(tmp_path / "Жанна Ñandú  人 #1%.mp4", walk(2))
    assert len(list(sample_video(path, 32))) == 2


def test_the_number_of_frames_may_follow_from_the_video(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", walk(12))
    asked = []

    def half(length: int, seconds: float) -> int:
        asked.append((length, seconds))
        return length // 2

    found = map_frames(path, half, "spread", lambda sample: sample.position)
    assert found == [sample.position for sample in sample_video(path, 6)]
    ((length, seconds),) = asked
    last = list(sample_video(path, None))[-1].seconds
    assert length == 12
    assert seconds == pytest.approx(last * 12 / 11, rel=0.01)


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all " * 100)
    (tmp_path / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256")
    sound(tmp_path / "talk.m4a").rename(tmp_path / "talk.mp4")
    for name, message in (
        ("empty.mp4", r"empty\.mp4 is empty \(0 bytes\)"),
        ("text.mp4", r"text\.mp4 is a text, and no video; leave it out"),
        ("pointer.mp4", r"pointer\.mp4 is a Git LFS pointer.*; run `git lfs pull`"),
        ("talk.mp4", r"talk\.mp4 holds no video, only audio; leave it out"),
        ("absent.mp4", r"absent\.mp4 cannot be opened"),
    ):
        with pytest.raises(InputError, match=message):
            list(sample_video(tmp_path / name, 4))


def test_a_file_cut_off_before_its_index_is_refused_and_one_cut_off_after_it_gives_what_it_has(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(30)]
    path = film(tmp_path / "noise.mp4", noise, options={"g": "5", "bf": "0"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_video(path) as (container, stream):
        held = read_index(container, stream)
    assert held.declared == 30
    assert 10 < held.length < 20
    assert held.truncated
    samples = list(sample_video(path, 8))
    assert sum(sample.image is not None for sample in samples) >= 7
    path.write_bytes(content[:30])
    with pytest.raises(InputError, match=r"noise\.mp4 cannot be opened"):
        list(sample_video(path, 8))


def test_damage_within_a_file_costs_the_frames_it_hits_and_no_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(30)]
    path = film(tmp_path / "noise.avi", noise, "mjpeg")
    whole, content = decoded(path), bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    path.write_bytes(content)
    samples = list(sample_video(path, None))
    assert [sample.position for sample in samples] == list(range(30))
    same = [
        sample.image is not None and np.array_equal(sample.image, whole[sample.position])
        for sample in samples
    ]
    assert 26 <= sum(same) < 30


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.txt", "pattern_%d.png"])
def test_a_file_that_names_other_files_is_refused(tmp_path: Path, name: str) -> None:
    private = film(tmp_path / "private.ts", moving()[:4])
    cv2.imwrite(str(tmp_path / "pattern_1.png"), moving()[0])
    for text in (
        "ffconcat version 1.0\nfile private.ts\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{private}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5 RTP/AVP 96\n",
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=re.escape(name)), open_video(tmp_path / name):
            pass


def test_a_forked_process_does_not_free_the_decoder_s_threads_that_it_inherited(
    tmp_path: Path,
) -> None:
    """FFmpeg would wait for them for ever: frames in cyclic garbage of the process that forks."""
    processes.prepare_fork()
    path = film(tmp_path / "film.mp4", walk(1))
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        frame.reformat(width=100, format="rgb24", threads=4)
    cycle: list[Any] = [frame]
    cycle.append(cycle)
    del frame, cycle
    child = os.fork()
    if not child:
        gc.collect()
        os._exit(0)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended
