"""Writing a file so that an old one of its name is never lost. Imports nothing of the package."""

import os
import secrets
import stat
from contextlib import suppress

_PRIVATE = 0o600
_AS_THE_UMASK_SAYS = 0o666


def replace_file(path: "str | os.PathLike[str]", content: bytes, *, private: bool) -> None:
    """Write *content* to a file beside *path*, then put it in its place in one step.

    If that fails, the old file is as it was, and no other file is left. A symbolic link stays, and the file that it
    leads to is replaced. The new file has the permissions of the old one; with *private* only its owner may read and
    write it, from before it has any content. What is no regular file (a pipe, a terminal) is written to.
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
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, _PRIVATE if private else _AS_THE_UMASK_SAYS
    )
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


_BINARY: int = getattr(os, "O_BINARY", 0)  # on Windows
