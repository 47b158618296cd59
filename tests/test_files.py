import errno
import os
from pathlib import Path

import pytest

from resolute.errors import ConfigError, OutputError, ResoluteError
from resolute.files import alone_in, among_others_in, write_atomically, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def half_then(error):
    def write(path):
        path.write_text("half")
        raise error

    return write


def test_a_file_appears_whole_with_its_folders(tmp_path):
    target = tmp_path / "a" / "b" / "note.txt"
    seen = []

    def write(temporary):
        temporary.write_text("first half")
        seen.append((target.exists(), temporary.parent == target.parent, temporary.suffix))
        temporary.write_text("whole")

    write_atomically(target, write)
    assert seen == [(False, True, ".txt")]
    assert target.read_text() == "whole"
    assert names(target.parent) == ["note.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("old")
    write_atomically(target, lambda path: (path.write_text("new"), target.read_text() == "old" or pytest.fail("early")))
    assert target.read_text() == "new"


def test_who_reads_the_old_file_keeps_it_whole(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("old")
    with target.open() as reader:
        write_text(target, "new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "note.txt"
    with pytest.raises(type(error)):
        write_atomically(target, half_then(error))
    assert names(tmp_path) == []
    target.write_text("old")
    with pytest.raises(type(error)):
        write_atomically(target, half_then(error))
    assert target.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_reported_in_one_line(tmp_path, code):
    target = tmp_path / "note.txt"
    target.write_text("old")
    with pytest.raises(OutputError) as caught:
        write_atomically(target, half_then(OSError(code, os.strerror(code))))
    message = str(caught.value)
    assert str(target) in message
    assert os.strerror(code) in message
    assert "\n" not in message
    assert caught.value.exit_code == 7
    assert target.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_an_error_without_a_number_is_reported_too(tmp_path):
    with pytest.raises(OutputError, match=r": cannot identify;"):
        write_atomically(tmp_path / "a.txt", half_then(OSError("cannot identify")))
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full(tmp_path):
    def write(temporary):
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("x" * 100_000)

    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
        write_atomically(tmp_path / "a.txt", write)
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(OutputError, match=f"cannot write to {target.parent}: .*; choose another folder"):
            write_text(target, "text")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EACCES)):
            write_text(tmp_path / "a.txt", "text")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match=f"cannot write to {tmp_path}: Permission denied; choose another folder"):
        write_text(tmp_path / "a.txt", "text")


def test_a_target_that_is_a_folder(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").is_dir()


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "λ Φ 写真\n")
    assert (tmp_path / "a.txt").read_bytes() == "λ Φ 写真\n".encode()


def test_output_errors_are_errors_that_a_user_can_mend():
    assert issubclass(OutputError, ResoluteError)


def test_pipes_and_devices_are_not_replaced_by_files(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    for path in ("pipe", "link", "/dev/null", "/dev/stdout", ".", "..", "/"):
        with pytest.raises(OutputError):
            write_text(Path(path), "x")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert Path("/dev/null").is_char_device()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_lock_of_a_folder_empties_no_file_that_it_is_a_link_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run.lock").symlink_to(tmp_path / "mine.txt")
    with among_others_in(tmp_path), pytest.raises(ConfigError), alone_in(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
