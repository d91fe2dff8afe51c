"""Runs a program that records nothing itself, and writes the diagram of its calls as SVG.

``python -m tests.docs.recorded PROGRAM PICTURE``. The program runs as if a `record()` block began with its connector.
So a page can show the picture of a program without a line in it for the picture.
"""

import runpy
import sys
from contextlib import ExitStack
from pathlib import Path

from asgi_connector import ASGIRoutingConnector, Journal
from asgi_connector._made import listeners


def record(program: Path) -> Journal:
    """Run *program*, and return the journal of its only connector."""
    journals: list[Journal] = []
    with ExitStack() as recordings:

        def begin(made: object) -> None:
            if isinstance(made, ASGIRoutingConnector):
                journals.append(recordings.enter_context(made.record()))

        listeners.append(begin)
        recordings.callback(listeners.remove, begin)
        sys.path.insert(0, str(program.parent))  # where the modules are that it imports
        runpy.run_path(str(program), run_name="__main__")
    [journal] = journals
    return journal


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(record(Path(sys.argv[1])).to_svg(), "utf-8")
