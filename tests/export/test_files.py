"""A saved journal replaces an old file in one step. Also: who may read the file."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_connector import Journal
from asgi_connector._export.files import replace_file

OLD = b"old"

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions and pipes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)

    def change(mask: int) -> None:
        os.umask(mask)

    yield change
    os.umask(before)


@pytest.mark.parametrize("private", [False, True])
def test_a_file_has_the_new_content_and_nothing_is_beside_it(tmp_path: Path, private: bool) -> None:
    path = tmp_path / "a.har"
    replace_file(path, b"1", private=private)
    assert path.read_bytes() == b"1"
    replace_file(str(path), b"2", private=private)
    assert path.read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [path]


@posix_only
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_a_new_file_has_the_permissions_of_any_other(
    tmp_path: Path, umask: Callable[[int], None], mask: int, expected: int
) -> None:
    umask(mask)
    replace_file(tmp_path / "a.har", b"", private=False)
    replace_file(tmp_path / "b.har", b"", private=True)
    assert (mode(tmp_path / "a.har"), mode(tmp_path / "b.har")) == (expected, 0o600)


@posix_only
@pytest.mark.parametrize("old", [0o600, 0o640, 0o666])
def test_an_old_file_keeps_its_permissions_unless_the_new_one_is_private(tmp_path: Path, old: int) -> None:
    for private, expected in ((False, old), (True, 0o600)):
        path = tmp_path / f"{private}.har"
        path.touch()
        path.chmod(old)
        replace_file(path, b"new", private=private)
        assert (mode(path), path.read_bytes()) == (expected, b"new")


@posix_only
def test_a_private_file_is_private_before_it_has_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.open

    def spy(path: Any, flags: int, *args: int) -> int:
        descriptor = real(path, flags, *args)
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    replace_file(tmp_path / "a.har", b"secret", private=True)
    assert modes == [0o600]


@pytest.mark.parametrize("failing", ["replace", "chmod"])
@pytest.mark.parametrize("problem", [OSError("no room"), KeyboardInterrupt()], ids=["OSError", "KeyboardInterrupt"])
def test_a_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, problem: BaseException
) -> None:
    def fail(*args: object) -> None:
        raise problem

    path = tmp_path / "a.har"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(problem)) as caught:
        replace_file(path, b"new", private=False)
    assert caught.value is problem
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.programs
@posix_only
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.har"
    path.write_bytes(OLD)
    program = (
        "import resource, signal, sys; from asgi_connector._export.files import replace_file\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "try:\n"
        "    replace_file(sys.argv[1], bytes(100_000), private=False)\n"
        "finally:\n"  # coverage writes its data at the end
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27]" in run.stderr
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_archive_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.har"
    path.write_bytes(OLD)
    broken: Any = Journal([None])  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        broken.save_har(path)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Journal().save_har(tmp_path / "nowhere" / "a.har")


@posix_only
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "files" / "a.har", tmp_path / "links" / "latest.har"
    for each in (target, link):
        each.parent.mkdir()
    if exists:
        target.write_bytes(OLD)
    link.symlink_to("../files/a.har")
    replace_file(link, b"new", private=True)
    assert link.is_symlink()
    assert (target.read_bytes(), mode(target)) == (b"new", 0o600)
    assert [list(each.parent.iterdir()) for each in (target, link)] == [[target], [link]]


@posix_only
def test_a_link_that_leads_to_itself_is_an_error_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "a.har"
    link.symlink_to("a.har")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(link, b"new", private=False)
    assert link.is_symlink()


@posix_only
def test_a_device_is_written_to_and_stays() -> None:
    Journal().save_har("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises((IsADirectoryError, PermissionError)):
        replace_file(tmp_path, b"", private=False)


@posix_only
def test_a_saved_journal_is_private_if_it_is_sensitive(tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(0)
    path = tmp_path / "a.har"
    Journal().save_har(path)
    assert mode(path) == 0o666
    Journal().save_har(path, sensitive=True)
    assert mode(path) == 0o600
    Journal().save_har(path)
    assert mode(path) == 0o600


def test_a_long_name_and_a_relative_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a" * 250
    replace_file(name, b"1", private=False)
    assert (tmp_path / name).read_bytes() == b"1"
