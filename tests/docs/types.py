"""Check the types of the code on the pages: ``python -m tests.docs.types`` runs mypy and pyright.

Both are strict, except where a library has no types. Each is run once, over all programs together. A file that a page
shows is a module that the files below it on the page may import. Two pages may show files of the same name, and a page
may show a later version of a file. So each file gets a name of its own, and the imports of it are changed accordingly.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from tests.docs.pages import PAGES, Block, blocks_of
from tests.support.programs import ROOT

_PLACE: Final = re.compile(r"^(?P<file>[^\s:]*?(?P<module>page_\w+)\.py):(?P<line>\d+)")


class _Leniency(NamedTuple):
    """What is not checked in a program that imports a certain library."""

    mypy: tuple[str, ...]
    pyright: tuple[str, ...]


_UNTYPED: Final = _Leniency(
    mypy=("disallow_subclassing_any = False", "disallow_untyped_decorators = False"),
    pyright=(
        "reportUnknownArgumentType",
        "reportUnknownParameterType",
        "reportUnknownVariableType",
        "reportUntypedBaseClass",
        "reportUntypedFunctionDecorator",
    ),
)
_LENIENT: Final = {
    "a2wsgi": _Leniency(("disable_error_code = arg-type",), ("reportArgumentType",)),  # refuses the type that Flask has
    "aiobotocore": _UNTYPED,
    "django": _UNTYPED,
    "fsspec": _UNTYPED,
    "quart": _UNTYPED,  # partly
    "slack_sdk": _UNTYPED,  # partly
    "socketio": _UNTYPED,
}


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        blocks = write_programs(Path(directory))
        failed = [checker(Path(directory), blocks) for checker in (_mypy, _pyright)]
    return int(any(failed))


def write_programs(directory: Path) -> dict[str, Block]:
    """Write each block of Python into *directory*; returns them by the names of their modules."""
    written: dict[str, Block] = {}
    for page in PAGES:
        modules: dict[str, str] = {}  # the name of each file on the page so far: the name of its newest version
        for block in blocks_of(page):
            if block.language == "python":
                name = re.sub(r"\W", "_", f"page_{block.id}")
                source = _with_imports(block.source, modules)
                (directory / f"{name}.py").write_text(source, "utf-8")
                written[name] = block
                if block.file is not None:
                    modules[block.file.removesuffix(".py")] = name
    return written


def _with_imports(source: str, modules: dict[str, str]) -> str:
    """*source*, with the same lines, importing each of *modules* by its other name."""
    for module, name in modules.items():
        source = re.sub(rf"^( *)from {module} import", rf"\1from {name} import", source, flags=re.MULTILINE)
        source = re.sub(rf"^( *)import {module}$", rf"\1import {name} as {module}", source, flags=re.MULTILINE)
    return source


def _leniencies(block: Block) -> list[_Leniency]:
    imported = re.findall(r"^ *(?:from|import) (\w+)", block.source, re.MULTILINE)
    return [leniency for library, leniency in _LENIENT.items() if library in imported]


def _mypy(directory: Path, blocks: dict[str, Block]) -> bool:
    settings = ["[mypy]", "strict = True"]
    settings += [
        line
        for library, leniency in _LENIENT.items()
        if leniency is _UNTYPED
        for line in (f"[mypy-{library}.*]", "ignore_missing_imports = True")
    ]
    settings += [
        line
        for name, block in blocks.items()
        for leniency in _leniencies(block)
        for line in (f"[mypy-{name}]", *leniency.mypy)
    ]
    (directory / "mypy.ini").write_text("\n".join(settings), "utf-8")
    cache = ROOT / ".mypy_cache" / "pages"
    return _check("mypy", ["mypy", "--cache-dir", str(cache), str(directory)], directory, blocks)


def _pyright(directory: Path, blocks: dict[str, Block]) -> bool:
    for name, block in blocks.items():
        # At the end, where they change no line's number.
        with (directory / f"{name}.py").open("a", encoding="utf-8") as file:
            for leniency in _leniencies(block):
                file.write(f"# pyright: {', '.join(f'{rule}=false' for rule in leniency.pyright)}\n")
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "reportMissingTypeStubs": False,  # as mypy is told to ignore them
        "reportUnknownMemberType": False,  # the members of whatever a typed library has from an untyped one
        "useLibraryCodeForTypes": False,
    }
    (directory / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    return _check("pyright", ["pyright", "--pythonpath", sys.executable], directory, blocks)


def _check(name: str, command: list[str], directory: Path, blocks: dict[str, Block]) -> bool:
    """Run a checker, print what it finds with the lines of the pages, and return whether it has found anything."""
    print(f"{name}: {len(blocks)} programs on the pages", flush=True)
    finished = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in (finished.stdout + finished.stderr).splitlines():
        print(_with_place(line, blocks))
    return finished.returncode != 0


def _with_place(line: str, blocks: dict[str, Block]) -> str:
    """*line* of a checker's output, with the page and its line in the place of the file and its line."""
    match = _PLACE.match(line.strip())
    if match is None:
        return line
    block = blocks[match["module"]]
    place = f"{block.page.relative_to(ROOT)}:{block.line + int(match['line']) - 1}"
    return place + line.strip()[match.end() :]


if __name__ == "__main__":
    sys.exit(main())
