"""`fmsd demo`: its REST interface, its queue, what it refuses, and its page in a browser."""

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("python_multipart", reason="python-multipart of fmsd[page] is not installed")
pytest.importorskip("uvicorn", reason="uvicorn of fmsd[page] is not installed")

from starlette.requests import Request

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.inference.media import Sampling
from fmsd.inference.page.guard import Guard
from fmsd.inference.page.queue import JobQueue, failure
from fmsd.inference.page.server import PACKAGES, listen
from fmsd.inference.page.uploads import Body, RefusedError, display_name, known_suffix
from fmsd.tasks.demo import file_answering
from tests.conftest import ROOT
from tests.demo_pages import BOUNDARY, LIMIT, Gate, Page, form, gate_detector, served_page
from tests.detectors import train_detector
from tests.films import film
from tests.pages import CONTRAST
from tests.test_signals import unignored_signals

REDDISH = np.dstack([np.full((96, 96), 230), np.full((96, 96), 90), np.full((96, 96), 80)])
GREENISH = REDDISH[..., [1, 0, 2]]


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1].astype(np.uint8))[1].tobytes()


def clip(folder: Path, *colours: np.ndarray) -> bytes:
    return film(folder / "clip.mp4", [colour.astype(np.uint8) for colour in colours]).read_bytes()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    with served_page(folder) as served:
        yield served


def test_an_image_is_answered_as_fmsd_predict_would(page: Page) -> None:
    reply = page.send(png(REDDISH), "me at the sea.png")
    assert reply.status == 202
    assert reply.headers["location"] == reply.json["address"]
    state = page.wait(reply.json["id"])
    assert (state["name"], state["state"], state["place"]) == ("me at the sea.png", "done", None)
    assert state["progress"]["fraction"] == 1
    assert state["progress"]["seconds"] > 0
    result = state["result"]
    assert result["written_by"] == "fmsd predict"
    assert result["detector"]["name"] == "mine"
    (file,) = result["files"]
    assert (file["path"], file["status"], file["kind"]) == ("me at the sea.png", "scored", "image")
    assert file["called"] == "fake"
    assert file["score"] == pytest.approx(230 / 255, abs=0.01)
    shown = page.ask("GET", state["page"])
    assert b"Called fake" in shown.body
    assert b"heat map" in shown.body
    assert page.answer(png(GREENISH))["result"]["files"][0]["called"] == "not fake"
    assert page.uploads() == []


def test_a_video_has_a_timeline_and_its_progress(page: Page, tmp_path: Path) -> None:
    content = clip(tmp_path, *[GREENISH] * 4, *[REDDISH] * 4)
    page.gate.open.clear()
    key = page.send(content, "clip.mp4").json["id"]
    page.wait(key, "running")
    for _ in range(200):
        if (half := page.ask("GET", f"/api/predictions/{key}").json)["progress"]["fraction"] == 1:
            break
        time.sleep(0.05)
    assert half["progress"]["fraction"] == 1  # all frames are looked at, no crop is scored
    assert half["result"] is half["page"] is None
    assert page.ask("GET", f"/predictions/{key}").status == 404
    page.gate.open.set()
    (file,) = page.wait(key)["result"]["files"]
    assert (file["kind"], file["sampled"], len(file["persons"])) == ("video", 6, 1)
    assert b"Scores over time" in page.ask("GET", f"/predictions/{key}").body
    assert page.uploads() == []


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.txt", "a", ""])
def test_what_is_no_medium_is_unreadable_and_names_no_path(page: Page, name: str) -> None:
    (file,) = page.answer(b"no medium", name)["result"]["files"]
    assert (file["status"], file["score"]) == ("unreadable", None)
    assert file["message"]
    assert str(page.folder) not in str(file)
    assert (name or "upload") in file["message"]
    assert page.uploads() == []


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list"])
def test_a_list_of_files_of_this_machine_is_not_followed(
    page: Page, tmp_path: Path, name: str
) -> None:
    private = film(tmp_path / "private.ts", [REDDISH.astype(np.uint8)] * 4)
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{private}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {private}\n",
        "ffconcat version 1.0\nfile ../private.ts\n",
    ):
        assert page.answer(text.encode(), name)["result"]["files"][0]["status"] == "unreadable"


def test_a_detector_that_cannot_be_explained_answers_without_heat_maps(tmp_path: Path) -> None:
    def heat(faces: object) -> list[np.ndarray]:
        raise InputError("The output of features has one place only", "give another layer=NAME")

    (tmp_path / "a.png").write_bytes(png(REDDISH))
    plain = replace(gate_detector(Gate()), heat=heat)
    answer = file_answering(plain, Sampling(6), "fpr5")(tmp_path / "a.png", "a.png", lambda _: None)
    assert "Called fake" in answer.page


def test_an_image_of_nobody_has_no_score(page: Page) -> None:
    (file,) = page.answer(png(np.zeros((64, 64, 3))))["result"]["files"]
    assert (file["status"], file["score"], file["called"]) == ("no face", None, None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../../etc/cron.d/evil.png", "evil.png"),
        ("/etc/passwd", "passwd"),
        (r"C:\Users\me\clip.mp4", "clip.mp4"),
        ("..", ".."),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a\u202egpj.png", r"a\u202egpj.png"),
        ("Größe 人.png", "Größe 人.png"),
        ("x" * 2000 + ".png", "x" * 196 + ".png"),
    ],
)
def test_the_name_of_a_file_is_no_path(page: Page, given: str, shown: str) -> None:
    page.gate.open.clear()
    key = page.send(png(REDDISH), given).json["id"]
    page.wait(key, "running")
    (upload,) = page.uploads()
    assert upload.stem == key
    assert upload.suffix in ("", ".png", ".mp4")
    page.gate.open.set()
    state = page.wait(key)
    assert state["name"] == state["result"]["files"][0]["path"] == shown
    assert b"<img src=x" not in page.ask("GET", state["page"]).body
    assert page.uploads() == []


def test_names_without_a_known_suffix_are_read_by_their_content(page: Page) -> None:
    assert page.answer(png(REDDISH), "picture.exe")["result"]["files"][0]["status"] == "scored"
    assert [known_suffix(name) for name in ("a.MP4", "a.py", "a.png/..", "a")] == [
        *(".mp4", "", "", "")
    ]
    (heic,) = page.answer(b"\0\0\0\x20ftypheic", "IMG_1.HEIC")["result"]["files"]
    assert (
        heic["message"] == "IMG_1.HEIC is of a format that is not read; convert it to PNG or JPEG."
    )
    assert display_name(None) == display_name("/") == "upload"


def test_jobs_wait_for_their_turn_and_can_be_left(page: Page) -> None:
    page.gate.open.clear()
    first, second, third = (page.send(png(REDDISH)).json["id"] for _ in range(3))
    page.wait(first, "running")
    assert page.wait(second, "waiting")["place"] == 1
    assert page.wait(third, "waiting")["place"] == 2
    assert len(page.uploads()) == 3
    assert page.ask("DELETE", f"/api/predictions/{second}").status == 204
    assert page.ask("GET", f"/api/predictions/{second}").status == 404
    assert page.wait(third, "waiting")["place"] == 1
    assert len(page.uploads()) == 2
    assert page.ask("DELETE", f"/api/predictions/{first}").status == 204
    page.gate.open.set()
    assert page.wait(third)["state"] == "done"
    assert page.uploads() == []
    assert page.ask("GET", f"/api/predictions/{first}").status == 404
    assert page.ask("DELETE", f"/api/predictions/{third}").status == 204
    assert page.ask("GET", f"/predictions/{third}").status == 404


def test_a_full_queue_refuses_and_forgets(tmp_path: Path) -> None:
    now = [0.0]
    folder = tmp_path / "uploads"
    folder.mkdir()
    with served_page(folder, most=2, kept=2, seconds=60.0, clock=lambda: now[0]) as page:
        page.gate.open.clear()
        keys = [page.send(png(REDDISH)).json["id"] for _ in range(2)]
        refused = page.send(png(REDDISH))
        assert refused.status == 503
        assert refused.json["error"] == "2 files wait already; send this one later."
        now[0] = 1.0
        page.gate.open.set()
        for key in keys:
            page.wait(key)
        now[0] = 2.0
        newest = page.answer(png(REDDISH))["id"]
        kept = [page.ask("GET", f"/api/predictions/{key}").status for key in (*keys, newest)]
        assert sorted(kept[:2]) == [200, 404]
        assert kept[2] == 200
        now[0] = 100.0
        gone = page.ask("GET", f"/api/predictions/{newest}")
        assert gone.status == 404
        assert "are kept for 1 minutes" in gone.json["error"]


def test_a_file_that_is_too_large_is_refused(page: Page) -> None:
    refused = page.send(bytes(LIMIT))
    assert refused.status == 413
    assert refused.json["error"].startswith("The file is larger than 0.3 MB; cut it")
    assert page.uploads() == []
    assert page.send(bytes(LIMIT - 1000)).status == 202


def test_a_file_of_undeclared_size_is_counted_while_it_arrives(page: Page) -> None:
    with page.connect() as connection:
        connection.sendall(
            b"POST /api/predictions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=" + BOUNDARY.encode() + b"\r\n\r\n"
        )
        body = form(bytes(2 * LIMIT), "a.png")
        for start in range(0, len(body), 50_000):
            part = body[start : start + 50_000]
            connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert page.uploads() == []
    assert page.queue.admit()  # its place in the queue is free


def test_an_upload_that_breaks_off_leaves_nothing(page: Page) -> None:
    body = form(png(REDDISH), "a.png")
    for _ in range(page.queue.most + 1):
        with page.connect() as connection:
            connection.sendall(
                b"POST /api/predictions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: multipart/form-data; boundary=" + BOUNDARY.encode() + b"\r\n"
                b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body[:100]
            )
        time.sleep(0.1)
    assert page.uploads() == []
    assert page.answer(png(REDDISH))["state"] == "done"


def body_of_pieces(pieces: list[bytes], seconds: float) -> Body:
    """An upload of which a piece arrives every few seconds."""
    waiting = iter(pieces)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(seconds)
        piece = next(waiting, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    request = Request({"type": "http", "headers": []}, receive)
    return Body(request, LIMIT, patience=0.5, slowest=1000)


async def received(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body.chunks()])


def test_an_upload_that_arrives_too_slowly_is_given_up() -> None:
    with pytest.raises(RefusedError, match="too slowly") as refusal:
        asyncio.run(received(body_of_pieces([b"x"] * 200, 0.02)))
    assert refusal.value.status == 408
    with pytest.raises(RefusedError, match="Nothing more"):  # also with seconds to spare
        asyncio.run(received(body_of_pieces([b"x" * 100_000], 0.6)))
    steady = [b"x" * 50] * 50
    assert asyncio.run(received(body_of_pieces(steady, 0.02))) == b"".join(steady)


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b"", "multipart/form-data; boundary=x", "no file in the field file"),
        (form(b"x", "a.png", "image"), None, "no file in the field file"),
        (form(b"x", "a.png")[:-30], None, "The request holds no file"),
        (form(b"x", "a.png").partition(b"\r\n--" + BOUNDARY.encode() + b"--")[0] + b"\r\n"
         + form(b"y", "b.png"), None, "Too many files"),
        (b"{}", "application/json", "it is no form"),
        (b"x", "multipart/form-data", "boundary"),
    ],
)  # fmt: skip
def test_a_request_without_one_file_is_refused(
    page: Page, body: bytes, kind: str | None, why: str
) -> None:
    kind = kind or f"multipart/form-data; boundary={BOUNDARY}"
    reply = page.ask("POST", "/api/predictions", body, content_type=kind)
    assert reply.status == 400
    assert why in reply.json["error"]
    assert reply.json["error"].endswith(".")
    assert page.uploads() == []


def test_a_prediction_that_fails_says_so_and_the_next_one_goes_on(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    page.gate.fails = True
    state = page.wait(page.send(png(REDDISH)).json["id"])
    assert (state["state"], state["result"]) == ("failed", None)
    assert "the terminal in which fmsd demo runs says why" in state["message"]
    assert "secret" not in str(state)
    assert "a secret detail" in caplog.text
    page.gate.fails = False
    assert page.answer(png(REDDISH))["state"] == "done"
    assert page.uploads() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "192.168.1.1", "[::", ""])
def test_a_foreign_host_is_refused(page: Page, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/api"), ("POST", "/api/predictions")):
        reply = page.ask(method, path, host=host)
        assert reply.status == 403
        assert "is not this page" in reply.json["error"]


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_a_tunnel_may_have_another_port(page: Page, host: str) -> None:
    assert page.ask("GET", "/api", host=host).status == 200


def test_a_page_of_another_address_cannot_send(page: Page) -> None:
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"http://localhost:{page.port}"},  # the same server under another name
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": page.address},
    ):
        assert page.send(png(REDDISH), **headers).status == 403
    assert page.send(png(REDDISH), origin=page.address, sec_fetch_site="same-origin").status == 202
    assert page.ask("GET", "/", sec_fetch_site="cross-site").status == 200  # a link


def test_a_server_for_others_accepts_addresses_and_no_foreign_names() -> None:
    guard = Guard(None, "0.0.0.0", local=False)  # pyright: ignore[reportArgumentType]
    assert all(map(guard.is_own, ("192.168.1.7:8000", "[fe80::1]:8000", "localhost")))
    assert not any(map(guard.is_own, ("evil.example", "192.168.1.7.evil.example", "")))
    assert Guard(None, "gpu7.lab", local=False).is_own("GPU7.lab:8000")  # pyright: ignore


def test_every_answer_keeps_to_this_machine(page: Page) -> None:
    page.answer(png(REDDISH))
    for path in ("/", "/demo.js", "/demo.css", "/report.css", "/report.js", "/api", "/nowhere"):
        reply = page.ask("GET", path)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "server" not in reply.headers
        assert not re.search(rb"https?://", reply.body)
    assert page.ask("PUT", "/api/predictions").json["error"] == (
        "There is no PUT /api/predictions here."
    )


def test_a_taken_port_and_an_unknown_host_are_refused() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="give another port="):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match=r"host=no\.such\.host\.invalid is no address"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(InputError, match=r"cannot listen on host=192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["port=70000"], "port=70000 is out of range"),
        (["limit=0"], "limit=0 is out of range"),
        (["port=abc"], "port=abc is no number"),
        (["at=fpr7"], "at=fpr7 is no threshold"),
        (["frames=0"], "frames=0 is out of range"),
        (["batch_size=0"], "batch_size=0 is out of range"),
    ],
)
def test_settings_are_checked_before_the_run_is_loaded(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "run=/nowhere", *words]) == 2
    assert why in capsys.readouterr().err


def test_the_packages_of_the_page_are_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.split(r"[>=]", line)[0] for line in project["optional-dependencies"]["page"]]
    assert sorted(named) == sorted(PACKAGES.values())


def test_without_them_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PACKAGES, "no_such_module", "no-such-package")
    assert main(["demo", "run=/nowhere"]) == 2
    assert "pip install 'fmsd[page]'" in capsys.readouterr().err


def test_a_failure_is_one_sentence() -> None:
    assert failure(InputError("Its layers are unknown", "name one")) == (
        "Its layers are unknown; name one."
    )
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/upload")
    assert failure(full).startswith("/tmp/upload cannot be written (No space left on device)")


def test_waiting_jobs_are_taken_in_order() -> None:
    queue = JobQueue()
    jobs = [queue.admit() for _ in range(3)]
    for job in reversed(jobs):
        job.file = Path("nowhere") / job.id
        queue.submit(job)
    seen: list[str] = []
    for _ in jobs:
        queue.work(lambda file, name, advance: seen.append(file.name), 0)  # pyright: ignore
    assert seen == [job.id for job in reversed(jobs)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_and_deletes_the_uploads(number: int, tmp_path: Path) -> None:
    run, temporary = train_detector(tmp_path), tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "fmsd", "demo", f"run={run}", "port=0", "device=cpu"]
    with unignored_signals():
        process = subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stdout is not None
        port = int(re.search(r"127\.0\.0\.1:(\d+) ", process.stdout.readline())[1])  # pyright: ignore
        served = Page(port, temporary, None, None)  # pyright: ignore[reportArgumentType]
        state = served.answer(png(REDDISH))
        assert state["result"]["detector"]["name"] == run.name
        (folder,) = temporary.glob("fmsd-demo-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        long = clip(tmp_path, *[np.random.default_rng(0).integers(0, 255, (480, 640, 3))] * 200)
        for _ in range(3):
            served.send(long, "long.mp4")
        assert len([*folder.iterdir()]) == 3
        with served.connect() as half:
            half.sendall(b"POST /api/predictions HTTP/1.1\r\nHost: localhost\r\n")
            process.send_signal(number)
            printed, said = process.communicate(timeout=60)
    finally:
        process.kill()
    if number == signal.SIGINT:  # as it is meant to end
        assert process.returncode == 0
        assert printed.endswith("The page has ended\n")
        assert "interrupted" not in said
    else:
        assert process.returncode == 128 + number
        assert said.strip().splitlines()[-1].startswith(f"fmsd: interrupted by {number.name}")
    assert "Traceback" not in said
    assert [*temporary.glob("fmsd-demo-*")] == []


@pytest.fixture
def tab(browser: Any, page: Page) -> Iterator[Any]:
    """The page in a browser, which must not complain, nor ask anyone else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    context.on("request", lambda request: requests.append(request.url))
    opened.goto(page.address)
    yield opened
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith((f"{page.address}/", "data:"))] == []


def upload(tab: Any, name: str, content: bytes) -> None:
    tab.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_the_result_of_a_video(
    tab: Any, page: Page, tmp_path: Path, scheme: str
) -> None:
    tab.emulate_media(color_scheme=scheme)
    page.gate.open.clear()
    upload(tab, "<b>clip.mp4", clip(tmp_path, *[GREENISH] * 4, *[REDDISH] * 4))
    tab.locator("#step", has_text="Writing the result").wait_for()
    assert tab.locator("#name").inner_text() == "<b>clip.mp4"
    assert tab.evaluate(CONTRAST)[0][0] >= 4.5
    page.gate.open.set()
    tab.locator("#found .verdict").wait_for()
    assert tab.evaluate("document.activeElement.id") == "title"
    assert tab.locator("#title").inner_text() == "<b>clip.mp4"
    text = tab.locator("#found").inner_text()
    for phrase in ("Called ", "A score is no proof", "validation data"):
        assert phrase in text
    assert tab.locator("#found svg[role=img]").count() == 1
    assert tab.locator("#found .faces img").count() == 12
    lowest = tab.evaluate(CONTRAST)[:3]
    assert lowest[0][0] >= 4.5, lowest
    assert not tab.locator("#work").is_visible()
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    with tab.context.expect_page() as own:
        tab.locator("#page").click()
    own.value.locator("h1", has_text="Predictions by mine").wait_for()


def test_the_page_says_what_has_no_score(tab: Any) -> None:
    upload(tab, "notes.mp4", b"no film")
    tab.locator("#found .warning", has_text="notes.mp4").wait_for()
    upload(tab, "night.png", png(np.zeros((64, 64, 3))))
    tab.locator("#found p", has_text="No face was found in the image").wait_for()


def test_the_page_refuses_a_large_file_and_goes_on(tab: Any, page: Page) -> None:
    upload(tab, "large.mp4", bytes(LIMIT + 1))
    tab.locator("#problem", has_text="large.mp4 is larger than 0.3 MB").wait_for()
    page.gate.fails = True
    upload(tab, "a.png", png(REDDISH))
    tab.locator("#problem", has_text="The prediction failed").wait_for()
    page.gate.fails = False
    upload(tab, "a.png", png(REDDISH))
    tab.locator("#found .verdict").wait_for()
    assert tab.locator("#problem").inner_text() == ""


def test_a_dropped_file_is_scored(tab: Any) -> None:
    transfer = tab.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
          return transfer;
        }""",
        list(png(REDDISH)),
    )
    tab.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    tab.locator("#title", has_text="dropped.png").wait_for()


def test_the_page_works_by_keyboard(tab: Any, page: Page) -> None:
    order = []
    for _ in range(3):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate("document.activeElement.id"))
    assert order[:2] == ["theme", "file"]
    page.gate.open.clear()
    upload(tab, "a.png", png(REDDISH))
    tab.locator("#cancel").press("Enter")
    assert tab.evaluate("document.activeElement.id") == "file"
    tab.wait_for_timeout(1000)  # what is still asked about the cancelled job is not shown
    assert not tab.locator("#work").is_visible()
    assert tab.locator("#problem").inner_text() == ""
    page.gate.open.set()


def test_a_closed_tab_leaves_the_queue(browser: Any, page: Page) -> None:
    page.gate.open.clear()
    key = page.send(png(REDDISH)).json["id"]
    page.wait(key, "running")
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(page.address)
    upload(tab, "a.png", png(REDDISH))
    tab.locator("#detail", has_text="place 1 in the queue").wait_for()
    assert len(page.uploads()) == 2
    tab.close(run_before_unload=True)
    for _ in range(100):
        if len(page.uploads()) == 1:
            break
        time.sleep(0.05)
    context.close()
    assert [upload.stem for upload in page.uploads()] == [key]
    page.gate.open.set()
    page.wait(key)
    assert page.uploads() == []
