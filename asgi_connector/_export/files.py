"""Replacing a file in one step, so that a failure never loses the old one. Imports nothing from the package."""

import os
import secrets
import stat
from contextlib import suppress

_PRIVATE_MODE = 0o600
_DEFAULT_MODE = 0o666  # before the umask
_BINARY: int = getattr(os, "O_BINARY", 0)  # on Windows


def replace_file(path: str | os.PathLike[str], content: bytes, *, private: bool) -> None:
    """Write *content* to a temporary file beside *path*, then replace *path* with it in one step.

    If writing fails, the old file is unchanged, and the temporary file is removed. A symbolic link stays, and the file
    that it points to is replaced. The new file has the permissions of the old one. With *private*, only its owner may
    read and write it, from before it has any content. A *path* that is not a regular file (a pipe, a terminal) is
    written to directly.
    """
    try:
        old: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:
            file.write(content)
        return
    target = os.path.realpath(path)
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".{name[:64]}.{secrets.token_hex(8)}.tmp")
    mode = _PRIVATE_MODE if private else _DEFAULT_MODE
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        if old is not None and not private:
            os.chmod(temporary, stat.S_IMODE(old.st_mode))
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
