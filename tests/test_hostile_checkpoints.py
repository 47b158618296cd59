"""Weights that anyone may have written: the right ones, or one line; no code is run and little memory taken."""

import io
import json
import pickle
import resource
import shutil
import struct
import zipfile

import onnx
import pytest
import torch
from odd import NAMES, damaged, forged, one_line, tried, value
from safetensors.torch import save
from test_onnx_files import beside, twice
from test_weights import Trap, card_of, network

from resolute import load
from resolute.errors import CheckpointError
from resolute.models.weights import save_model

# In kB, besides twice the file.
ROOM = 500_000

DTYPES = (
    torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.int32,
)  # fmt: skip


def pretended(rng, tensor):
    shape = tensor.shape
    return rng.choice(
        (
            lambda: torch.zeros(1).expand(shape),
            lambda: torch.zeros(1).expand(2 ** rng.choice((4, 20, 30)), 2**10, 3, 3),
            lambda: torch.zeros(2**40, 0, 3, 3),
            lambda: torch.zeros(tensor.numel()).as_strided(shape, (1,) * len(shape)),
            lambda: tensor.to("meta"),
            lambda: tensor.to_sparse(),
            lambda: torch.nested.nested_tensor([tensor, tensor]),
            lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            lambda: tensor * torch.nan,
            lambda: tensor[:0],
            lambda: tensor.reshape(-1),
            lambda: tensor.mT.contiguous() if tensor.dim() > 1 else tensor[None],
            lambda: value(rng),
        )
    )()


def archived(content, zipped=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def wrapped(rng, state):
    content = state
    for _ in range(rng.choice((1, 2, 5, 200))):
        content = rng.choice(
            (
                lambda inner: {"state_dict": inner}, lambda inner: {"model": inner, "epoch": value(rng)},
                lambda inner: [inner],
                lambda inner: {"params_ema": inner, "params": inner}, lambda inner: {rng.choice(NAMES): inner},
            )
        )(content)  # fmt: skip
    return content


def with_lying_header(rng, content):
    """A file of safetensors whose header says something else."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(forged(rng, json.loads(content[8 : 8 + size]))).encode()
    said = rng.choice((len(header),) * 4 + (0, 2**40, 2**63, len(header) - 1))
    return struct.pack("<Q", said) + header + content[8 + size :]


def repacked(rng, content):
    """An archive with an entry dropped, doubled, renamed, blown up or compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        entries = old.infolist()
        chosen = rng.choice(entries).filename
        what = rng.choice(("drop", "rename", "zeros", "damage"))
        for entry in entries:
            held = old.read(entry)
            if entry.filename != chosen or what == "rename":
                name = "../../x" if entry.filename == chosen else entry.filename
                new.writestr(name, held)
            elif what != "drop":
                new.writestr(entry.filename, bytes(10**8) if what == "zeros" else damaged(rng, held))
    return out.getvalue()


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def card_file(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "net.safetensors"
    save_model(net, path, card_of(net, licence="MIT"))
    return path.read_bytes()


def checkpoint(rng, net, card_file, proof):
    """A suffix, what the file holds, and whether the weights in it can be the right ones alone."""
    state = dict(net.state_dict())
    narrow = {key: one.to(rng.choice(DTYPES[:3])) for key, one in state.items()}
    name = rng.choice(sorted(state))
    zipped = rng.random() < 0.7
    return rng.choice(
        (
            lambda: (".pth", damaged(rng, archived(state)), True),
            lambda: (".pth", damaged(rng, archived(state, zipped=False)), False),
            lambda: (".pth", archived(wrapped(rng, state), zipped), True),
            lambda: (".pth", archived({**state, name: pretended(rng, state[name])}, zipped), False),
            lambda: (".pth", archived({**state, name: state[name].to(rng.choice(DTYPES))}, zipped), False),
            lambda: (".pth", archived(narrow, zipped), False),
            lambda: (".pth", archived({**state, rng.choice(("x", *NAMES)): value(rng)}, zipped), True),
            lambda: (".pth", archived({key: one for key, one in state.items() if key != name}, zipped), True),
            lambda: (".pth", archived({**state, "callback": Trap(proof)}, zipped), True),
            lambda: (".pth", pickle.dumps({**state, "callback": Trap(proof)}), True),
            lambda: (".pth", repacked(rng, archived(state)), False),
            lambda: (".safetensors", damaged(rng, card_file), True),
            lambda: (".safetensors", with_lying_header(rng, card_file), False),
            lambda: (".safetensors", save(state, {rng.choice(NAMES) or "card": str(value(rng))}), True),
            lambda: (".safetensors", archived(state), True),
        )
    )()  # fmt: skip


def loaded_or_refused(path):
    """The model, or None where one line says why not; either way with little memory, and finite weights."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        loaded = load(path)
    except CheckpointError as error:
        one_line(error, path.name)
        return None
    finally:
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert taken < ROOM + 2 * path.stat().st_size // 1000
    assert all(torch.isfinite(one).all() for one in loaded.state_dict().values())
    return loaded


@pytest.mark.filterwarnings("ignore")
@tried(25, 500)
def test_weights_are_right_or_refused_in_one_line(rng, net, card_file, tmp_path):
    proof = tmp_path / "proof"
    try:
        suffix, content, certain = checkpoint(rng, net, card_file, proof)
    except (UnicodeEncodeError, RecursionError, TypeError):
        pytest.skip("no file can hold it")
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    loaded = loaded_or_refused(path)
    if loaded is not None and certain:
        found = loaded.state_dict()
        assert all(torch.equal(found[key], right) for key, right in net.state_dict().items())
    assert not proof.exists()


def script():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(network(), torch.rand(1, 3, 8, 8)), buffer)
    return buffer.getvalue()


PLACES = (
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "\\\\host\\x",
    "model.onnx",
    "",
    ".",
    "x" * 300,
    "model.onnx.data",
)


@pytest.mark.filterwarnings("ignore")
@tried(6, 150)
def test_graphs_are_right_or_refused_in_one_line(rng, tmp_path):
    path = beside(tmp_path / "net", 1.0)
    (tmp_path / "secret").write_bytes(bytes(4000))
    what = rng.choice(("graph", "weights", "place", "script", "text"))
    certain = False
    if what == "graph":
        path.write_bytes(damaged(rng, path.read_bytes()))
    elif what == "weights":
        weights = path.with_name("model.onnx.data")
        weights.write_bytes(damaged(rng, weights.read_bytes()))
    elif what == "place":
        model, certain = onnx.load(path, load_external_data=False), True
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == rng.choice(("location", "offset", "length")):
                    entry.value = (
                        rng.choice(PLACES) if entry.key == "location" else str(rng.choice((-1, 2**63, "x", 7)))
                    )
                    certain = entry.key == "location"
        onnx.save(model, path)
    elif what == "script":
        path = tmp_path / f"net{rng.choice(('.pth', '.pt', '.safetensors', '.onnx'))}"
        path.write_bytes(script() if rng.random() < 0.5 else damaged(rng, script()))
    else:
        path = shutil.copyfile(path, tmp_path / f"net{rng.choice(('.pth', '.param', '.bin', '.safetensors'))}")
    loaded = loaded_or_refused(path)
    x = torch.full((1, 3, 8, 8), 0.5)
    assert loaded is None or not certain or torch.allclose(loaded(x), twice(x))
