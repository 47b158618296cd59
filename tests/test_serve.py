"""The local page, used by hand: a really started server, a real browser, and uploads that mean harm."""

import os
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
from pathlib import Path

import pytest
import torch

from resolute.errors import ImageError
from resolute.images import sample_image, write_png
from resolute.models import load
from resolute.models.scorers import load_scorer
from resolute.serve import attack_steps, certify_steps, read_upload
from resolute.serve.jobs import MAX_PIXELS, Step, Trial


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
        from resolute.serve.page import ATTACKS

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

    @pytest.mark.parametrize("job", ["attack", "certify"])
    def test_a_tiny_image_is_refused(self, job):
        tiny = torch.zeros(3, 4, 4)
        with pytest.raises(ImageError, match="too small"):
            to_the_end(
                attack_steps(load("edsr-xs"), tiny)
                if job == "attack"
                else certify_steps(load_scorer("quality-s"), tiny)
            )


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
    result = subprocess.run(
        [sys.executable, "-m", "resolute", "serve", "--no-browser"],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 5
    assert "'resolute[demo]'" in result.stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Start the command as a person would; yield its address and port."""
    pytest.importorskip("gradio", reason="the page needs the extra [demo]")
    folder = tmp_path_factory.mktemp("serve")
    log, port = (folder / "log").open("w+"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "resolute", "serve", "--no-browser", "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
    )  # fmt: skip
    try:
        for _ in range(600):
            said = (folder / "log").read_text()
            if "Ctrl-C stops it" in said or process.poll() is not None:
                break
            time.sleep(0.1)
        assert f"http://127.0.0.1:{port}/" in said, said
        yield f"http://127.0.0.1:{port}/", port
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
        "([id, words]) => new RegExp(words).test(document.getElementById(id).innerText)", arg=[f"{of}-status", words]
    )
    return page.locator(f"#{of}-status").inner_text()


@pytest.mark.browser
class TestPage:
    def test_an_upload_is_attacked_and_compared(self, opened, tmp_path):
        write_png(tmp_path / "<b>mine.png", sample_image("chelsea")[:, :96, :96])
        opened.set_input_files("#attack-file input[type=file]", tmp_path / "<b>mine.png")
        opened.wait_for_function("() => document.getElementById('attack-file').innerText.includes('mine')")
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
        opened.set_input_files("#attack-file input[type=file]", tmp_path / "bad.png")
        opened.wait_for_function("() => document.getElementById('attack-file').innerText.includes('bad')")
        opened.locator("#attack-go").click()
        assert "no image" in status(opened, "cannot read bad.png")

    def test_a_file_that_is_too_large_is_not_taken(self, opened, tmp_path):
        (tmp_path / "large.png").write_bytes(bytes(10_000_001))
        opened.set_input_files("#attack-file input[type=file]", tmp_path / "large.png")
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
    result = subprocess.run(
        [sys.executable, "-m", "resolute", "serve", "--no-browser", "--port", str(served[1])],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 5
    assert f"port {served[1]} is taken" in result.stderr
