"""The local page, used by hand: a really started server, a real browser, and uploads that mean harm."""

import http.client
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from odd import FULL, tried
from warm import Typed

from resolute.errors import ConfigError, ImageError
from resolute.images import sample_image, write_png
from resolute.models import load
from resolute.models.scorers import load_scorer
from resolute.serve import (
    Step,
    Trial,
    attack_steps,
    certify_steps,
    faithful_steps,
    harden_steps,
    read_upload,
)
from resolute.serve.hardening import MINUTES
from resolute.serve.jobs import MAX_BYTES, MAX_PIXELS


def huge_png(path: Path, width: int = 8000, height: int = 8000) -> Path:
    """A file of a few hundred bytes that says it has more pixels than are allowed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def to_the_end(job):
    """Return all steps of a job, and its result."""
    steps = []
    while True:
        try:
            steps.append(next(job))
        except StopIteration as end:
            return steps, end.value


class TestJobs:
    def test_an_attack_tells_its_steps_and_what_came_out(self):
        steps, found = to_the_end(attack_steps(load("edsr-xs"), sample_image("coffee"), steps=5, side=16))
        assert isinstance(found, Trial)
        assert all(isinstance(step, Step) and step.total == 5 for step in steps)
        assert found.clean.shape == (3, 16, 16)
        assert found.attacked_output.shape == found.truth.shape == (3, 64, 64)
        assert 0 < float((found.attacked - found.clean).abs().max()) <= 4 / 255 + 1e-6
        assert found.record.sr_psnr < 45
        assert found.record.attacked_psnr_y < found.record.clean_psnr_y

    def test_the_curve_is_of_what_is_climbed(self):
        steps, _ = to_the_end(attack_steps(load("edsr-xs"), sample_image("coffee"), steps=20, side=24))
        curve = steps[-1].values
        assert len(curve) > 1
        assert curve[-1] > curve[0]

    def test_every_attack_of_the_page_runs(self):
        pytest.importorskip("gradio", reason="the page needs the extra [demo]")
        from resolute.serve.tabs import ATTACKS

        for kind in ATTACKS.values():
            _, found = to_the_end(attack_steps(load("edsr-xs"), sample_image("coffee"), kind=kind, steps=2, side=16))
            assert found.record.attack == kind

    def test_a_small_image_is_enlarged_as_it_is(self):
        image = sample_image("coffee")[:, :20, :24]
        _, found = to_the_end(attack_steps(load("edsr-xs"), image, steps=1, photograph=False))
        assert found.clean.shape == image.shape
        assert found.truth is None

    def test_it_can_be_stopped(self):
        stop = threading.Event()
        job = attack_steps(load("edsr-xs"), sample_image("coffee"), steps=100, side=64, stop=stop)
        next(job)
        began = time.monotonic()
        stop.set()
        assert to_the_end(job)[1] is None
        assert time.monotonic() - began < 5

    def test_nothing_goes_on_when_nobody_listens(self):
        before = threading.active_count()
        job = attack_steps(load("edsr-xs"), sample_image("coffee"), steps=100, side=64)
        next(job)
        job.close()
        assert threading.active_count() == before

    def test_a_certificate_has_an_interval(self):
        steps, found = to_the_end(certify_steps(load_scorer("quality-s"), sample_image("coffee"), samples=40, fit=64))
        assert steps[-1].total == 40
        assert found.lower < found.score < found.upper

    def test_what_is_invented_is_said_and_shown(self, tmp_path):
        image, model = sample_image("coffee"), load("edsr-xs")
        steps, found = to_the_end(faithful_steps("edsr-xs", model, image, tmp_path, side=16))
        assert steps[-1].done == steps[-1].total == 100
        assert found.sentences[0].startswith("Did edsr-xs invent this?")
        shown = {view.label: view.pixels for view in found.case.views}
        assert shown["truth"].shape == shown["output"].shape == (3, 64, 64)
        covered = shown["output, what is not trusted covered"] != shown["output"]
        assert 0 < float(covered.double().mean()) < 1

    def test_a_small_image_has_no_truth_to_be_held_against(self, tmp_path):
        image = sample_image("coffee")[:, :16, :20]
        _, found = to_the_end(faithful_steps("edsr-xs", load("edsr-xs"), image, tmp_path, photograph=False))
        assert "truth" not in [view.label for view in found.case.views]

    def test_hardening_gives_weights_and_the_same_attack_before_and_after(self, tmp_path, monkeypatch):
        monkeypatch.setattr("resolute.serve.hardening.STEPS", 3)
        model, image = load("edsr-xs"), sample_image("coffee")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        steps, found = to_the_end(harden_steps("edsr-xs", model, image, tmp_path, but="coffee", minutes=0.001, side=16))
        assert {"photograph read", "training step"} < {step.what for step in steps}
        assert not (tmp_path / "photographs" / "coffee.png").exists()
        assert found.before.shape == found.after.shape == (3, 64, 64)
        judged = [one.judged[0].damage["APGD"] for one in (found.made.before, found.made.after)]
        assert judged[0] != judged[1]
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        hardened = load(found.made.weights).state_dict()
        assert any(not torch.equal(before[name], tensor) for name, tensor in hardened.items())

    def test_hardening_ends_when_it_is_stopped(self, tmp_path):
        stop = threading.Event()
        job = harden_steps("edsr-xs", load("edsr-xs"), sample_image("coffee"), tmp_path, minutes=3, side=16, stop=stop)
        while next(job).what != "training step":
            pass
        stop.set()
        assert to_the_end(job)[1] is None

    def test_nobody_hardens_for_an_hour(self, tmp_path):
        job = harden_steps("edsr-xs", load("edsr-xs"), sample_image("coffee"), tmp_path, minutes=60)
        with pytest.raises(ConfigError, match=f"{MINUTES:g}"):
            next(job)

    @pytest.mark.parametrize("job", ["attack", "certify", "faithful", "harden"])
    def test_a_tiny_image_is_refused(self, job, tmp_path):
        tiny, model = torch.zeros(3, 4, 4), load("edsr-xs")
        jobs = {
            "attack": lambda: attack_steps(model, tiny),
            "certify": lambda: certify_steps(load_scorer("quality-s"), tiny),
            "faithful": lambda: faithful_steps("edsr-xs", model, tiny, tmp_path),
            "harden": lambda: harden_steps("edsr-xs", model, tiny, tmp_path),
        }
        with pytest.raises(ImageError, match="too small"):
            to_the_end(jobs[job]())


class TestUploads:
    def test_too_many_pixels_are_refused_before_they_are_unfolded(self, tmp_path):
        assert MAX_PIXELS < 8000 * 8000
        with pytest.raises(ImageError, match=r"64 .*\b20\b"):
            read_upload(str(huge_png(tmp_path / "huge.png")), "coffee")

    def test_a_large_file_is_refused(self, tmp_path):
        (tmp_path / "large.png").write_bytes(bytes(10_000_001))
        with pytest.raises(ImageError, match="10 are allowed"):
            read_upload(str(tmp_path / "large.png"), "coffee")

    def test_the_folder_of_uploads_is_not_told(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"no image")
        with pytest.raises(ImageError, match=r"^[^/]*bad\.png"):
            read_upload(str(tmp_path / "bad.png"), "coffee")


def test_without_gradio_the_command_says_what_to_install(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ImportError('not here')")
    code, stderr = Typed("serve", "--no-browser", environment={"PYTHONPATH": str(tmp_path)}).ended(120)
    assert code == 5
    assert "'resolute[demo]'" in stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Start the command as a person would; yield its address, port and process id."""
    pytest.importorskip("gradio", reason="the page needs the extra [demo]")
    folder = tmp_path_factory.mktemp("serve")
    log, port = (folder / "log").open("w+"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "resolute", "serve", "--no-browser", "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
    )  # fmt: skip
    try:
        for _ in range(1800):
            said = (folder / "log").read_text()
            if "Ctrl-C stops it" in said or process.poll() is not None:
                break
            time.sleep(0.1)
        assert f"http://127.0.0.1:{port}/" in said, said
        yield f"http://127.0.0.1:{port}/", port, process.pid, folder
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    left = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != "log"]
    assert left == [], "what was uploaded, and all pictures made of it, are deleted"


@pytest.fixture
def opened(served, browser):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(60_000)
    strangers: list[str] = []
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((served[0], "data:", "blob:")) else strangers.append(request.url)
        ),
    )
    page.goto(served[0])
    page.wait_for_selector("#attack-go")
    yield page
    assert strangers == []
    context.close()


def status(page, words, of="attack"):
    page.wait_for_function(
        "([id, words]) => new RegExp(words).test(document.getElementById(id).innerText)",
        arg=[f"{of}-status", words], timeout=180_000,
    )  # fmt: skip
    return page.locator(f"#{of}-status").inner_text()


@pytest.mark.browser
class TestPage:
    def test_an_upload_is_attacked_and_compared(self, opened, tmp_path):
        write_png(tmp_path / "<b>mine.png", sample_image("chelsea")[:, :96, :96])
        opened.set_input_files("#image-file input[type=file]", tmp_path / "<b>mine.png")
        opened.wait_for_function("() => document.getElementById('image-file').innerText.includes('mine')")
        opened.locator("#attack-steps input[type=number]").fill("5")
        opened.locator("#attack-go").click()
        status(opened, "Done")
        figures = opened.locator("#attack-figures").inner_text()
        assert "4/255 on edsr-s" in figures
        assert 15 < float(re.search(r"SR-PSNR.*?(\d+\.\d+) dB", figures, re.DOTALL)[1]) < 45
        assert "4 / 255" in figures
        opened.wait_for_function("() => document.querySelectorAll('#attack-slider img').length === 2")
        sources = opened.locator("#attack-slider img").evaluate_all("images => images.map(image => image.src)")
        assert len(set(sources)) == 2
        self.all_pictures_show(opened)
        opened.locator("#attack-gain input[type=number]").fill("16")
        opened.locator("#attack-gain input[type=number]").press("Tab")
        opened.wait_for_function("() => document.body.innerText.includes('Difference of the outputs, \u00d716')")
        self.all_pictures_show(opened)
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 390

    def all_pictures_show(self, page):
        """Two outputs, two differences, two inputs: a broken one has no width."""
        page.wait_for_function(
            "() => { const all = [...document.querySelectorAll('img')];"
            " return all.length === 6 && all.every(image => image.complete && image.naturalWidth >= 24); }",
            timeout=15_000,
        )

    def test_progress_shows_and_stop_stops(self, opened):
        opened.locator("#attack-steps input[type=number]").fill("100")
        opened.locator("#attack-go").click()
        assert "SR-PSNR" in status(opened, r"[1-9]\d* of 100, SR-PSNR")
        opened.locator("#attack-stop").click()
        status(opened, "Stopped")
        assert opened.locator("#attack-figures").inner_text().strip() == ""

    def test_what_is_no_image_is_refused_in_a_sentence(self, opened, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"<script>alert(1)</script>" * 20)
        opened.set_input_files("#image-file input[type=file]", tmp_path / "bad.png")
        opened.wait_for_function("() => document.getElementById('image-file').innerText.includes('bad')")
        opened.locator("#attack-go").click()
        assert "no image" in status(opened, "cannot read bad.png")

    def test_a_file_that_is_too_large_is_not_taken(self, opened, tmp_path):
        (tmp_path / "large.png").write_bytes(bytes(10_000_001))
        opened.set_input_files("#image-file input[type=file]", tmp_path / "large.png")
        opened.wait_for_function("() => document.body.innerText.includes('exceed the maximum allowed size')")

    def test_a_score_is_certified(self, opened):
        opened.get_by_role("tab", name="Certify").click()
        opened.locator("#certify-samples input[type=number]").fill("40")
        opened.locator("#certify-go").click()
        status(opened, "Done", of="certify")
        said = opened.locator("#certify-result").inner_text()
        score, low, high = map(float, re.search(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", said).groups())
        assert low < score < high
        assert "With confidence 99.9 %" in said

    def test_what_a_model_invented_is_shown_for_the_image_of_the_other_tab(self, opened, tmp_path):
        write_png(tmp_path / "mine.png", sample_image("chelsea")[:, :64, :96])
        opened.set_input_files("#image-file input[type=file]", tmp_path / "mine.png")
        opened.wait_for_function("() => document.getElementById('image-file').innerText.includes('mine')")
        opened.get_by_role("tab", name="Faithful").click()
        opened.locator("#faithful-go").click()
        status(opened, "Done", of="faithful")
        told = opened.locator("#faithful-result").inner_text()
        assert "Did edsr-s invent this?" in told
        assert "of the pixels are trusted" in told
        opened.wait_for_function("() => document.querySelectorAll('#faithful-gallery img').length === 12")
        opened.wait_for_function(
            "() => [...document.querySelectorAll('#faithful-slider img')].every(image => image.naturalWidth > 0)"
        )
        sizes = opened.locator("#faithful-slider img").evaluate_all(
            "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
        )
        assert sizes == [[96, 64]] * 2
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 390

    def test_a_model_is_hardened_and_its_weights_are_taken_home(self, opened, served, tmp_path):
        opened.get_by_role("tab", name="Harden").click()
        opened.locator("#harden-minutes input[type=number]").fill("0.1")
        opened.locator("#image-side input[type=number]").fill("16")
        opened.locator("#harden-go").click()
        status(opened, "training step: [1-9]", of="harden")
        status(opened, "Done", of="harden")
        assert "keeps" in opened.locator("#harden-result").inner_text()
        opened.wait_for_function("() => document.querySelectorAll('#harden-slider img').length === 2")
        with opened.expect_download() as download:
            opened.locator("#harden-weights").click()
        kept = tmp_path / download.value.suggested_filename
        download.value.save_as(kept)
        assert kept.name == "edsr-xs-hardened.safetensors"
        before, after = (model.state_dict() for model in (load("edsr-xs"), load(kept)))
        assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
        assert [*served[3].glob("resolute-*/work/*")] == [], "what a job wrote is deleted when it ends"
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_only_this_machine_under_its_own_name_is_answered(served):
    def answer(host):
        request = urllib.request.Request(f"{served[0]}config", headers={"Host": host})
        with urllib.request.urlopen(request) as found:
            return found.status

    assert answer(f"127.0.0.1:{served[1]}") == 200
    with pytest.raises(urllib.error.HTTPError, match="400"):
        answer("rebound.example")
    # Any other address of this machine is closed.
    with pytest.raises(OSError):  # noqa: PT011, the system chooses which
        socket.create_connection(("127.0.0.2", served[1]), timeout=2)


def test_a_taken_port_is_said(served):
    code, stderr = Typed("serve", "--no-browser", "--port", served[1]).ended(120)
    assert code == 5
    assert f"port {served[1]} is taken" in stderr


# Requests that no browser sends.

SECRET = "a secret beside what is served"
PATHS = (
    "/", "/config", "/gradio_api/info", "/gradio_api/file={}", "/file={}", "/gradio_api/file/{}", "/static/{}",
    "/assets/{}",
    "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash={}", "/gradio_api/call/{}",
    "/gradio_api/component_server", "/gradio_api/run/predict", "/gradio_api/reset", "/gradio_api/cancel", "/proxy={}",
    "/gradio_api/stream/{}", "/gradio_api/heartbeat/{}", "/login", "/monitoring", "/docs", "/openapi.json", "/mcp",
    "/{}",
    "/theme.css", "/gradio_api/startup-events", "/custom_component/{}/x/y/z", "/gradio_api/deep_link", "/pwa_icon/{}",
)  # fmt: skip
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"{",
    b'{"data": []}',
    b'{"data": [1], "fn_index": 0, "session_hash": "x"}',
    b"\xff" * 50,
)


def places(secret):
    climbed = f"{'../' * 12}{str(secret)[1:]}"
    return (
        str(secret), climbed, quote(climbed, safe=""), f"..%252f{secret}", f"//{secret}", f"\\\\host\\{secret}",
        "x" * 9000,
        "%00", "%ff%fe", "http://127.0.0.1:1/", f"file://{secret}", "/proc/self/environ", "~/.ssh/id_rsa",
    )  # fmt: skip


def ask(port, method, path, body=b"", headers=()):
    """Return the status of an answer, its head and its beginning; None where there is none within seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest(method, path.encode("latin-1", "replace").decode("latin-1"), skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **dict(headers)}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read(1_000_000)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def odd_request(rng, port, secret):
    path = rng.choice(PATHS).replace("{}", rng.choice(places(secret))).replace(" ", "%20")
    headers = rng.choice(
        (
            {}, {}, {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data; boundary=x"},
            {"Origin": "https://rebound.example"}, {"Host": "rebound.example"}, {"Content-Length": "-1"},
            {"Content-Length": "99999999999"}, {"Range": "bytes=0-99999999999"}, {"Cookie": "x" * 9000},
            {"X-Forwarded-Host": "rebound.example"}, {"Transfer-Encoding": "chunked"}, {"Upgrade": "websocket"},
        )
    )  # fmt: skip
    return (
        rng.choice(("GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "X")),
        path,
        rng.choice(BODIES),
        headers,
    )


def occupied(pid):
    """Resident memory in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


@tried(2, 40)
def test_odd_requests_are_told_nothing(rng, served, tmp_path):
    _, port, pid, _ = served
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    slow = []
    for _ in range(5):
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        client.sendall(
            rng.choice((b"", b"GET /", b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"))
        )
        slow.append(client)
    before = occupied(pid)
    for _ in range(25):
        method, path, body, headers = odd_request(rng, port, secret)
        found = ask(port, method, path, body, headers.items())
        if found is not None:
            status, head, content = found
            assert SECRET.encode() not in content
            assert b"root:" not in content
            assert b"Traceback" not in content
            assert head.get("access-control-allow-origin", "") not in ("*", "https://rebound.example")
            assert status < 500 or b"Internal Server Error" in content
    assert ask(port, "GET", "/config")[0] == 200
    assert occupied(pid) - before < 50
    for client in slow:
        client.close()


@pytest.mark.parametrize(("size", "status"), [(MAX_BYTES - 1000, 200), (MAX_BYTES + 1000, 413)])
def test_an_upload_is_taken_up_to_its_limit(served, size, status):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../a.png"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    found = ask(served[1], "POST", "/gradio_api/upload", body, kind.items())
    assert found[0] == status
    if status == 200:
        (path,) = json.loads(found[2])
        assert ".." not in path


def attacked(port, session, *, image, level):
    """Attack as a page does, and return the last thing that it is told."""
    from resolute.serve.desk import SHRINK

    config = json.loads(ask(port, "GET", "/config")[2])
    button = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "attack-go")
    number = next(one["id"] for one in config["dependencies"] if [button, "click"] in one["targets"])
    data = [None, image, SHRINK, "edsr-xs", "I-FGSM", level, 1, 16, 8]
    body = json.dumps({"data": data, "event_data": None, "fn_index": number, "session_hash": session})
    joined = ask(port, "POST", "/gradio_api/queue/join", body.encode(), {"Content-Type": "application/json"}.items())
    if joined is None or joined[0] != 200:
        return "busy" if joined is not None and b"full" in joined[2] else joined
    address = f"http://127.0.0.1:{port}/gradio_api/queue/data?session_hash={session}"
    figures = ""
    with urllib.request.urlopen(address, timeout=300) as stream:
        for line in stream:
            told = json.loads(line[5:]) if line.startswith(b"data:") else {}
            found = re.findall(r"[\d.]+ dB|full", json.dumps(told))
            figures = " ".join(found) or figures
            if told.get("msg") in ("process_completed", "close_stream"):
                return figures
    return figures


@tried(1, 10)
def test_sessions_at_once_get_their_own_answers_or_hear_that_it_is_busy(rng, served):
    port, kinds = served[1], [("coffee", 2), ("astronaut", 8), ("chelsea", 32)]
    alone = {kind: attacked(port, f"alone-{kind[1]}", image=kind[0], level=kind[1]) for kind in kinds}
    assert len(set(alone.values())) == len(kinds)
    chosen = [rng.choice(kinds) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(attacked, port, f"s{rng.random()}", image=kind[0], level=kind[1]) for kind in chosen]
        found = [job.result() for job in jobs]
    assert all(one in (alone[kind], "busy") for one, kind in zip(found, chosen, strict=True)), found
    assert sum(one != "busy" for one in found) >= 8


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.skipif(not FULL, reason="takes ten minutes; RESOLUTE_HOSTILE=full runs it")
def test_ten_minutes_of_sessions_odd_requests_and_slow_clients_leave_memory_flat(served, tmp_path):
    _, port, pid, _ = served
    rng, kinds = random.Random(0), [("coffee", 2), ("astronaut", 8), ("chelsea", 32)]
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    alone = {kind: attacked(port, f"long-{kind[1]}", image=kind[0], level=kind[1]) for kind in kinds}
    begin, before, answers, requests = time.monotonic(), 0.0, 0, 0
    with ThreadPoolExecutor(20) as pool:
        while time.monotonic() - begin < 600:
            slow = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(5)]
            for client in slow:
                client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
            chosen = [rng.choice(kinds) for _ in range(20)]
            jobs = [pool.submit(attacked, port, f"l{rng.random()}", image=kind[0], level=kind[1]) for kind in chosen]
            for _ in range(25):
                method, path, body, headers = odd_request(rng, port, secret)
                found = ask(port, method, path, body, headers.items())
                requests += 1
                assert found is None or SECRET.encode() not in found[2]
            for kind, job in zip(chosen, jobs, strict=True):
                told = job.result()
                assert told in (alone[kind], "busy"), told
                answers += told != "busy"
            for client in slow:
                client.close()
            # What is loaded once is loaded after the first round.
            before = before or occupied(pid)
    more = occupied(pid) - before
    sys.stderr.write(f"{requests} requests, {answers} answers, {more:.0f} MB more than after the first round\n")
    assert ask(port, "GET", "/config")[0] == 200
    assert more < 50
