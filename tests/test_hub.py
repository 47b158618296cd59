"""Files from hubs, by real clients from a real server on this machine that speaks as the hubs do."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import onnx
import pytest
import torch
from test_ncnn import compact
from test_onnx_files import beside as external

from resolute import load
from resolute.errors import CheckpointError, ConfigError
from resolute.models import hub as module

COMMIT = "a" * 40


class Server:
    """A hub: what it serves by path, and what it was asked."""

    def __init__(self):
        self.files, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                outer.asked.append(self.path)
                path = self.path.partition("?")[0]
                content = outer.files.get(path)
                if content is None and path != "/":
                    self.send_response(404)
                    if path.startswith("/someone/nothing/"):
                        self.send_header("X-Error-Code", "RepoNotFound")
                    elif "/resolve/v9/" in path:
                        self.send_header("X-Error-Code", "RevisionNotFound")
                    elif "/resolve/" in path:
                        self.send_header("X-Error-Code", "EntryNotFound")
                        self.send_header("X-Repo-Commit", COMMIT)
                    self.end_headers()
                    return
                content = content or b""
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch, tmp_path):
    found = Server()
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("RESOLUTE_OPENMODELDB", f"{found.url}/models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield found
    found.close()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def refused(name, kind=CheckpointError):
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        load(name)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The Hugging Face Hub, through huggingface_hub.


@pytest.fixture
def hub(server, monkeypatch, tmp_path, tiny_model):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub, of the extra [zoo], is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    server.files["/someone/sr/resolve/main/nets/tiny.safetensors"] = tiny_model.read_bytes()
    server.files["/someone/sr/resolve/v2/nets/tiny.safetensors"] = tiny_model.read_bytes()
    return server


NAME = "hf-hub:someone/sr/nets/tiny.safetensors"


def test_a_file_of_a_repository_is_loaded_and_kept(hub, monkeypatch, tiny_model):
    assert load(NAME).card.sha256 == load(tiny_model).card.sha256
    assert load(f"{NAME}@v2").scale == 4
    assert any("/resolve/v2/" in path for path in hub.asked)
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load(NAME).scale == 4
    assert len(hub.asked) == asked
    hub.close()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert load(NAME).scale == 4


def test_a_pinned_file_is_checked(hub, tiny_model):
    assert load(f"{NAME}#sha256={sha256(tiny_model.read_bytes())}").scale == 4
    assert sha256(tiny_model.read_bytes()) in refused(f"{NAME}#sha256={'0' * 64}")
    assert "64 hexadecimal digits" in refused(f"{NAME}#sha256=abc", ConfigError)
    assert "OWNER/REPOSITORY/FILE" in refused("hf-hub:nothing", ConfigError)


def test_files_that_belong_to_one_come_with_it_and_are_pinned_with_it(hub, tmp_path):
    path, network = compact(tmp_path)
    text, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    hub.files["/someone/sr/resolve/v2/nets/small.param"] = text
    assert "nets/small.bin" in refused("hf-hub:someone/sr/nets/small.param@v2")
    hub.files["/someone/sr/resolve/v2/nets/small.bin"] = weights
    name, x = "hf-hub:someone/sr/nets/small.param@v2", torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load(name)(x), network(x))
    both = load(path).card.sha256
    assert load(f"{name}#sha256={both}").card.sha256 == both
    assert both in refused(f"{name}#sha256={sha256(text)}")


def test_weights_outside_of_its_folder_are_not_fetched_for_an_onnx_file(hub, tmp_path):
    model = onnx.load(external(tmp_path / "a", 1.0), load_external_data=False)
    hub.files["/someone/sr/resolve/main/a/model.onnx"] = model.SerializeToString()
    hub.files["/someone/sr/resolve/main/a/model.onnx.data"] = (tmp_path / "a" / "model.onnx.data").read_bytes()
    x = torch.rand(1, 3, 8, 8)
    assert load("hf-hub:someone/sr/a/model.onnx")(x).shape == (1, 3, 16, 16)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../a/model.onnx.data" if entry.key == "location" else entry.value
    hub.files["/someone/sr/resolve/main/b/model.onnx"] = model.SerializeToString()
    assert "outside of its own folder" in refused("hf-hub:someone/sr/b/model.onnx")


def test_what_the_hub_does_not_have_is_told(hub):
    assert "repository someone/nothing" in refused("hf-hub:someone/nothing/x.safetensors")
    assert "file x.safetensors" in refused("hf-hub:someone/sr/x.safetensors")
    assert "revision v9" in refused(f"{NAME}@v9")


def test_without_a_network_it_is_said_at_once_what_to_fetch(hub, monkeypatch):
    hub.close()
    message = refused(NAME)
    assert f"{hub.url} cannot be reached: run `hf download someone/sr nets/tiny.safetensors`" in message
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refused(NAME)


def test_a_missing_client_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert refused(NAME, ConfigError).endswith("pip install 'resolute[zoo]'")


# OpenModelDB.


@pytest.fixture
def catalogue(server, tiny_model):
    content = tiny_model.read_bytes()
    server.files["/tiny"] = content
    server.files["/page"] = b"<html>click here</html>"
    resources = [
        {"platform": "onnx", "type": "onnx", "sha256": "1" * 64, "urls": [f"{server.url}/onnx"]},
        {"platform": "pytorch", "type": "pth", "sha256": "2" * 64, "urls": [f"{server.url}/pth"]},
        {
            "platform": "pytorch",
            "type": "safetensors",
            "size": len(content),
            "sha256": sha256(content),
            "urls": [f"{server.url}/page", f"{server.url}/tiny"],
        },
    ]
    write = lambda name, some: server.files.update({f"/models/{name}.json": json.dumps({"resources": some}).encode()})  # noqa: E731
    write("4x-Tiny", resources)
    write("4x-Gone", [{**resources[2], "urls": [f"{server.url}/gone", "file:///etc/passwd"]}])
    write("4x-Page", [{**resources[2], "urls": [f"{server.url}/page"]}])
    write("4x-Loose", [{**resources[2], "sha256": None}])
    server.files["/models/4x-Torn.json"] = b"[{"
    return server


def test_a_model_of_the_catalogue_is_loaded_checked_and_kept(catalogue, monkeypatch, tmp_path, tiny_model):
    model = load("openmodeldb:4x-Tiny")
    assert (model.scale, model.card.sha256) == (4, load(tiny_model).card.sha256)
    assert catalogue.asked == ["/models/4x-Tiny.json", "/page", "/tiny"]
    load("openmodeldb:4x-Tiny")
    assert catalogue.asked[3:] == ["/models/4x-Tiny.json"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    load(f"openmodeldb:4x-Tiny#sha256={sha256(tiny_model.read_bytes())}")
    assert len(catalogue.asked) == 4
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert "HF_HUB_OFFLINE" in refused("openmodeldb:4x-Tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert load("openmodeldb:4x-Tiny").scale == 4


def test_nothing_of_a_wrong_download_stays(catalogue, tmp_path):
    message = refused("openmodeldb:4x-Page")
    assert "sha256" in message
    assert f"{tmp_path / 'cache'}/" in message
    assert {file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()} == {"model.json"}


def test_what_the_catalogue_lacks_is_told(catalogue):
    assert "'4x-None'" in refused("openmodeldb:4x-None")
    message = refused("openmodeldb:4x-Gone")
    assert "404" in message
    assert "file:///etc/passwd" in message
    assert "sha256" in refused("openmodeldb:4x-Loose")
    assert "sha256" in refused(f"openmodeldb:4x-Tiny#sha256={'3' * 64}")
    assert "4x-Torn" in refused("openmodeldb:4x-Torn")
    assert "openmodeldb:NAME" in refused("openmodeldb:../x", ConfigError)


def test_a_page_of_the_public_catalogue_is_the_one_that_was_pinned(catalogue, monkeypatch, tmp_path):
    monkeypatch.delenv("RESOLUTE_OPENMODELDB")
    monkeypatch.setattr(module, "_CATALOGUE", f"{catalogue.url}/models")
    table = tmp_path / "pinned.sha256"
    table.write_text(f"{sha256(catalogue.files['/models/4x-Tiny.json'])}  4x-Tiny.json\n{'0' * 64}  4x-Gone.json\n")
    monkeypatch.setattr(module, "_PINNED", table)
    assert load("openmodeldb:4x-Tiny").scale == 4
    asked = len(catalogue.asked)
    assert load("openmodeldb:4x-Tiny").scale == 4
    assert len(catalogue.asked) == asked, "what is pinned cannot have changed"
    page = tmp_path / "cache" / "resolute" / "openmodeldb" / "4x-Tiny" / "model.json"
    page.write_bytes(page.read_bytes() + b" ")
    assert load("openmodeldb:4x-Tiny").scale == 4
    assert "another page" in refused("openmodeldb:4x-Gone")
    assert "pinned" in refused("openmodeldb:4x-Page")


def test_the_pinned_catalogue_has_the_models_that_people_use():
    pages = module._pages(module._PINNED)
    assert len(pages) > 600
    assert {"4x-UltraSharp.json", "4x-ESRGAN.json"} <= pages.keys()
    assert all(len(digest) == 64 and int(digest, 16) for digest in pages.values())


def test_a_download_without_end_is_cut(catalogue, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    assert "more than" in refused("openmodeldb:4x-Tiny")


def test_without_the_catalogue_it_is_said_at_once_where_to_look(catalogue, monkeypatch):
    catalogue.close()
    assert "download" in refused("openmodeldb:4x-Tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refused("openmodeldb:4x-Tiny")
