"""Each message on the page about troubleshooting is the one that its reader gets.

A section of the page begins with a message, and the program of the same title in here provokes it. The programs run
in a process of their own, and what is compared is what they print: tracebacks, warnings, and records of the log.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS
from tests.support.programs import ROOT

PAGE: Final = DOCS / "troubleshooting.md"
SECTION: Final = re.compile(r"^### ([^\n]+)\n\n```text\n(.+?)\n```$", re.MULTILINE | re.DOTALL)
MESSAGES: Final = dict(SECTION.findall(PAGE.read_text("utf-8")))

PRELUDE: Final = """
import asyncio
import aiohttp
from asgi_connector import ASGIRoutingConnector, faults

async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})

def make_connector(users=hello, **settings):
    apps = {"users.internal": users}
    return ASGIRoutingConnector(apps, **({"lifespan": "off"} | settings))

def make_session(users=hello, **settings):
    return aiohttp.ClientSession(connector=make_connector(users, **settings))

async def get(users=hello, url="http://users.internal/", **settings):
    async with make_session(users, **settings) as session:
        async with session.get(url) as response:
            await response.read()

async def inject(fault):
    async with make_session() as session:
        with session.connector.inject("users.internal", fault):
            await session.post("http://users.internal/")

async def record(users=hello, **settings):
    async with make_session(users) as session:
        with session.connector.record(**settings) as journal:
            async with session.post("http://users.internal/", json={"id": 7}) as response:
                await response.read()
    return journal

def in_another_loop(make):
    async def call():
        return make()
    return asyncio.new_event_loop().run_until_complete(call())
"""

PROGRAMS: Final = {
    "No app is mounted": """
asyncio.run(get(url="http://user.internal/"))
""",
    "A call of a service was refused": """
async def users(scope, receive, send):
    try:
        async with aiohttp.ClientSession() as session:
            await session.get("http://mail.internal/")
    except aiohttp.ClientError:
        await hello(scope, receive, send)
async def main():
    async with make_connector(users) as connector:
        with connector.intercept():
            async with aiohttp.request("GET", "http://users.internal/"):
                pass
asyncio.run(main())
""",
    "Cannot connect to host": """
asyncio.run(inject(faults.Unresolvable()))
""",
    "A URL without a host": """
asyncio.run(get(url="/users/1"))
""",
    "The request was never awaited": """
async def main():
    async with make_session() as session:
        session.get("http://users.internal/")
asyncio.run(main())
""",
    "The response is not JSON": """
async def users(scope, receive, send):
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": b"Internal Server Error"})
async def main():
    async with make_session(users) as session, session.get("http://users.internal/") as response:
        await response.json()
asyncio.run(main())
""",
    "A timeout without a message": """
async def users(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass
async def main():
    async with make_session(users) as session:
        await session.get("http://users.internal/", timeout=aiohttp.ClientTimeout(total=0.01))
asyncio.run(main())
""",
    "The server disconnected": """
asyncio.run(inject(faults.Close()))
""",
    "The body is not complete": """
async def users(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"half of it", "more_body": True})
    raise LookupError("the other half")
asyncio.run(get(users, raise_app_exceptions=False))
""",
    "The app sent no response": """
async def users(scope, receive, send):
    pass
asyncio.run(get(users))
""",
    "Messages in the wrong order": """
async def users(scope, receive, send):
    await send({"type": "http.response.body", "body": b"hello"})
asyncio.run(get(users))
""",
    "A WebSocket that the app does not know": """
async def main():
    async with make_session() as session:
        await session.ws_connect("http://users.internal/")
asyncio.run(main())
""",
    "No event loop runs": """
make_connector()
""",
    "No running event loop": """
aiohttp.ClientSession()
""",
    "The connector belongs to another loop": """
session = in_another_loop(make_session)
async def main():
    await session.get("http://users.internal/")
asyncio.run(main())
""",
    "A mounted host is called from another loop": """
async def call():
    async with aiohttp.request("GET", "http://users.internal/"):
        pass
async def main():
    async with make_connector() as connector:
        with connector.intercept():
            await asyncio.to_thread(asyncio.run, call())
asyncio.run(main())
""",
    "Timeout context manager": """
session = in_another_loop(aiohttp.ClientSession)
async def main():
    await session.get("http://127.0.0.1/")
asyncio.run(main())
""",
    "Session and connector of two loops": """
connector = in_another_loop(make_connector)
async def main():
    aiohttp.ClientSession(connector=connector, loop=asyncio.get_running_loop())
asyncio.run(main())
""",
    "Event loop is closed": """
loop = asyncio.new_event_loop()
async def make():
    return make_session()
session = loop.run_until_complete(make())
loop.close()
loop.run_until_complete(session.close())
""",
    "Session is closed": """
async def main():
    async with make_session() as session:
        pass
    await session.get("http://users.internal/")
asyncio.run(main())
""",
    "The connector was closed by another session": """
async def main():
    connector = make_connector()
    async with aiohttp.ClientSession(connector=connector):
        pass
    async with aiohttp.ClientSession(connector=connector) as session:
        await session.get("http://users.internal/")
asyncio.run(main())
""",
    "Connector is closed": """
async def main():
    connector = make_connector()
    await connector.close()
    connector.mount("orders.internal", hello)
asyncio.run(main())
""",
    "Unclosed client session": """
async def main():
    session = make_session()
    async with session.get("http://users.internal/"):
        pass
asyncio.run(main())
""",
    "Unclosed connector": """
async def main():
    session = aiohttp.ClientSession(connector=make_connector(), connector_owner=False)
    async with session, session.get("http://users.internal/"):
        pass
asyncio.run(main())
""",
    "A function that makes an app": """
def make_app():
    return hello
in_another_loop(lambda: make_connector(make_app))
""",
    "A WSGI app": """
from flask import Flask
in_another_loop(lambda: make_connector(Flask("users")))
""",
    "A pattern with a path": """
in_another_loop(lambda: ASGIRoutingConnector({"http://users.internal/api": hello}))
""",
    "An app fails to start": """
from contextlib import asynccontextmanager
from fastapi import FastAPI
@asynccontextmanager
async def lifespan(app):
    raise LookupError("no database")
    yield
asyncio.run(get(FastAPI(lifespan=lifespan), lifespan="auto"))
""",
    "An app without a lifespan": """
asyncio.run(get(lifespan="on"))
""",
    "An app does not shut down": """
async def users(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await asyncio.Event().wait()
async def main():
    async with make_connector(users, lifespan="on", shutdown_timeout=0.1):
        pass
asyncio.run(main())
""",
    "An app goes on without its client": """
async def app(scope, receive, send):
    await asyncio.Event().wait()
async def main():
    async with make_session(app, shutdown_timeout=1.2) as session:
        try:
            await session.get("http://users.internal/", timeout=aiohttp.ClientTimeout(total=0.01))
        except TimeoutError:
            pass
asyncio.run(main())
""",
    "A block that was never entered": """
async def main():
    async with make_session() as session:
        session.connector.inject("users.internal", faults.Reset())
asyncio.run(main())
""",
    "A fault that met no request": """
async def main():
    async with make_session() as session:
        with session.connector.inject("users.internal", faults.Reset()):
            pass
asyncio.run(main())
""",
    "A body that a criterion needs": """
journal = asyncio.run(record())
journal.assert_called("users.internal", json={"id": 1})
""",
    "A body that was not recorded": """
journal = asyncio.run(record())
journal[0].request.json()
""",
    "A body that was cut": """
journal = asyncio.run(record(bodies=True, max_body_size=4))
journal[0].request.json()
""",
    "A body that is not JSON": """
async def users(scope, receive, send):
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})
journal = asyncio.run(record(users, bodies=True))
journal[0].response.json()
""",
    "A block that affects nothing": """
async def main():
    async with make_session() as session:
        with session.connector.partition({None}, {"users.internal"}):
            pass
asyncio.run(main())
""",
    "A group that is a str": """
async def main():
    async with make_session() as session:
        session.connector.partition("users.internal", "orders.internal")
asyncio.run(main())
""",
    "No message was held": """
async def main():
    async with make_session() as session:
        with session.connector.hold("users.internal") as held:
            await held.wait(timeout=0.01)
asyncio.run(main())
""",
    "A restart from inside the app": """
async def users(scope, receive, send):
    await session.connector.restart("users.internal")
async def main():
    global session
    async with make_session(users) as session:
        await session.get("http://users.internal/")
asyncio.run(main())
""",
    "A scenario without calls": """
async def scenario(shake):
    await get()
asyncio.run(faults.explore(scenario, [faults.Refuse()]))
""",
    "A scenario that fails without a fault": """
async def scenario(shake):
    raise LookupError("no database")
asyncio.run(faults.explore(scenario, [faults.Refuse()]))
""",
    "A planned fault that met no call": """
import itertools
numbers = itertools.count(1)
async def scenario(shake):
    async with make_session() as session:
        with shake(session.connector):
            await session.get(f"http://users.internal/{next(numbers)}")
async def main():
    report = await faults.explore(scenario, [faults.Refuse()])
    assert report, report
asyncio.run(main())
""",
}

TEST_FILES: Final = {
    "A test fails though its assertions hold": """
import pytest
@pytest.mark.asyncio
async def test_users():
    async def users(scope, receive, send):
        try:
            await session.get("http://mail.internal/")
        except aiohttp.ClientError:
            await hello(scope, receive, send)
    async with make_session(users) as session, session.get("http://users.internal/") as response:
        assert response.status == 200
""",
    "An argument that the mark does not have": """
import pytest
@pytest.mark.asgi_connector(refused=True)
def test_users():
    pass
""",
    "Async functions are not supported": """
async def test_users():
    pass
""",
    "An async fixture that no plugin handles": """
import pytest
@pytest.fixture
async def session():
    yield make_session()
def test_users(session):
    pass
""",
    "A fixture of another loop": """
import pytest
import pytest_asyncio
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session():
    async with make_session() as session:
        yield session
@pytest.mark.asyncio
async def test_users(session):
    await session.get("http://users.internal/")
""",
    "Attached to a different loop": """
import pytest
import pytest_asyncio
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def answer():
    return asyncio.get_running_loop().create_future()
@pytest.mark.asyncio
async def test_users(answer):
    await answer
""",
    "ScopeMismatch": """
import pytest
import pytest_asyncio
@pytest_asyncio.fixture(scope="session")
async def session():
    async with make_session() as session:
        yield session
@pytest.mark.asyncio
async def test_users(session):
    await session.get("http://users.internal/")
""",
}


RUN_ALL: Final = """
import gc
import sys
import traceback
import warnings
for title, program in {programs!r}.items():
    print(f"### {{title}}", file=sys.stderr)
    warnings.resetwarnings()
    warnings.simplefilter("default")
    try:
        exec(compile(program, title, "exec"), {{"__name__": "__main__"}})
    except BaseException:
        traceback.print_exc()
    gc.collect()
"""


def output_of(*arguments: str | Path) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What each of the programs prints, by its title."""
    programs = {title: PRELUDE + program for title, program in PROGRAMS.items()}
    output = output_of("-c", RUN_ALL.format(programs=programs))
    return dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^### |\Z)", output, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def printed_by_pytest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints of all the test files."""
    directory = tmp_path_factory.mktemp("test_files")
    for number, source in enumerate(TEST_FILES.values()):
        (directory / f"test_{number}.py").write_text(PRELUDE + source, "utf-8")
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "asgi_connector.pytest_plugin"]
    settings: list[str | Path] = ["-p", "no:cacheprovider", "--rootdir", directory]
    settings += ["-o", "asyncio_default_fixture_loop_scope=function"]
    output = output_of("-m", "pytest", *plugins, *settings, directory)
    return re.sub(r"^E   +", "", output, flags=re.MULTILINE)


def assert_printed(message: str, output: str) -> None:
    """*message* is in *output*, in lines of its own or at the end of one; ``...`` stands for any text in a line."""
    pattern = r".*".join(re.escape(part) for part in message.split("..."))
    assert re.search(rf"{pattern}$", output, re.MULTILINE), output


def test_every_section_of_the_page_is_here() -> None:
    sections = re.findall(r"^### (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sections == list(MESSAGES) == [*PROGRAMS, *TEST_FILES]


def test_every_section_of_the_page_has_a_cause_and_a_fix() -> None:
    sections = re.split(r"^### ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        assert re.findall(r"^\*\*(\w+)\.\*\* \S", section, re.MULTILINE) == ["Cause", "Fix"]


@pytest.mark.programs
@pytest.mark.parametrize("title", PROGRAMS)
def test_a_program_prints_the_message(title: str, printed: dict[str, str]) -> None:
    assert_printed(MESSAGES[title], printed[title])


@pytest.mark.programs
@pytest.mark.parametrize("title", TEST_FILES)
def test_pytest_prints_the_message(title: str, printed_by_pytest: str) -> None:
    assert_printed(MESSAGES[title], printed_by_pytest)
