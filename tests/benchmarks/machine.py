"""What a run was measured on, and with. Times are comparable only if all of it is the same."""

import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def python_version() -> str:
    """The version, as in ``3.14.1`` or ``3.14.1t``, with *t* for a build without the GIL."""
    return platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")


def describe_build() -> str:
    """How this Python was compiled, as in ``PGO, no LTO, with the GIL``."""
    debug = ["a debug build (--with-pydebug)"] if sysconfig.get_config_var("Py_DEBUG") else []
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return ", ".join([*debug, _optimisation(), "with the GIL" if gil else "without the GIL"])


def _optimisation() -> str:
    flags = " ".join(str(sysconfig.get_config_var(name) or "") for name in _FLAGS)
    pgo = "--enable-optimizations" in flags or "-fprofile-use" in flags or "-fprofile-instr-use" in flags
    lto = "--with-lto" in flags or "-flto" in flags
    if not (pgo or lto) and _is_record_of_another_build():
        return "PGO and LTO unknown (Python's record of its build is of another build)"
    return ", ".join(name if is_on else f"no {name}" for name, is_on in (("PGO", pgo), ("LTO", lto)))


# Not PGO_PROF_USE_FLAG: it has the flag of the compiler, whether it was used or not.
_FLAGS = ("CONFIG_ARGS", "PY_CFLAGS", "PY_CORE_CFLAGS", "PY_CFLAGS_NODIST", "PY_LDFLAGS_NODIST", "PY_CORE_LDFLAGS")


def _is_record_of_another_build() -> bool:
    """Whether this program has no shared library, but its record is of a build with one.

    Debian compiles several times. The record is of the shared build, and the program is of the static one.
    """
    maps = Path("/proc/self/maps")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not maps.exists():
        return False
    return "libpython" not in maps.read_text("utf-8")


def describe_machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


def describe_packages(distributions: Iterable[str]) -> str:
    return ", ".join(f"{name} {version(name)}" for name in sorted(dict.fromkeys(distributions)))
