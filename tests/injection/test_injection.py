"""The block of a fault: its parameters, which requests it affects, what it counts, and what it reports at its end."""

import asyncio
import copy
import importlib
import pickle
import random
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args

import aiohttp
import pytest
from aiohttp import ClientSession

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, Exchange, Journal, Mount, faults
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.flow import until_it_stops
from tests.support.outside import Elsewhere, tcp_server
from tests.support.programs import run_python
from tests.support.sessions import connector_of

# What a fault is.

DESCRIPTIONS = [
    (faults.Refuse(), "Refuse()"),
    (faults.Unresolvable(), "Unresolvable()"),
    (faults.Respond(503), "Respond(status=503)"),
    (faults.Hang(), "Hang(on='response', after=None)"),
    (faults.Hang(on="connect"), "Hang(on='connect', after=None)"),
    (faults.Reset(on="request", after=0), "Reset(on='request', after=0)"),
    (faults.Close(after=10), "Close(on='response', after=10)"),
    (faults.Latency(0.5), "Latency(seconds=0.5, jitter=0.0, on='response')"),
    (faults.Latency(1, jitter=1, on="request"), "Latency(seconds=1, jitter=1, on='request')"),
    (faults.Throttle(1000), "Throttle(bytes_per_second=1000, on='response')"),
]


@pytest.mark.parametrize(("fault", "text"), DESCRIPTIONS, ids=[text for _, text in DESCRIPTIONS])
def test_a_fault_says_what_it_is(fault: faults.Fault, text: str) -> None:
    assert repr(fault) == text
    assert eval(text, vars(faults)) == fault
    assert [other for other, _ in DESCRIPTIONS if other == fault] == [fault]


def test_an_answer_does_not_show_what_may_be_large_or_a_secret() -> None:
    fault = faults.Respond(429, {"set-cookie": "secret=1"}, "no")
    assert repr(fault) == "Respond(status=429)"
    assert fault == faults.Respond(429, {"set-cookie": "secret=1"}, "no")
    assert fault != faults.Respond(429)


def test_equal_faults_have_the_same_hash() -> None:
    assert hash(faults.Reset(after=3)) == hash(faults.Reset("response", 3))
    assert len({faults.Refuse(), faults.Refuse(), faults.Unresolvable()}) == 2


def test_a_fault_cannot_be_changed() -> None:
    fault = faults.Reset()
    with pytest.raises(AttributeError):
        fault.after = 1  # type: ignore[misc]


ON_THE_WIRE = [faults.Hang, faults.Reset, faults.Close]
PARTS = "'request', 'response'"
MISTAKES: list[tuple[Any, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *(
        (fault, (), {"after": after}, error, message)
        for fault in ON_THE_WIRE
        for after, error, message in [
            (-1, ValueError, "after must not be negative, but is -1"),
            (1.0, TypeError, "after must be an int, a number of bytes, or None, not 1.0"),
            (True, TypeError, "after must be an int, a number of bytes, or None, not True"),
            ("1", TypeError, "after must be an int, a number of bytes, or None, not '1'"),
        ]
    ),
    (faults.Hang, ("up",), {}, ValueError, f"on must be one of 'connect', {PARTS}, not 'up'"),
    (faults.Reset, ("connect",), {}, ValueError, f"on must be one of {PARTS}, not 'connect'"),
    (faults.Close, (None,), {}, ValueError, f"on must be one of {PARTS}, not None"),
    (faults.Latency, (1,), {"on": "connect"}, ValueError, f"on must be one of {PARTS}, not 'connect'"),
    (faults.Throttle, (1,), {"on": ["request"]}, ValueError, f"on must be one of {PARTS}, not ['request']"),
    (
        faults.Hang,
        (),
        {"on": "connect", "after": 0},
        ValueError,
        "after must be left out with on='connect', where there is no head, but is 0",
    ),
    (faults.Latency, (-1,), {}, ValueError, "seconds must not be negative, nor infinite, but is -1"),
    (faults.Latency, (float("inf"),), {}, ValueError, "seconds must not be negative, nor infinite, but is inf"),
    (faults.Latency, (float("nan"),), {}, ValueError, "seconds must not be negative, nor infinite, but is nan"),
    (faults.Latency, ("1",), {}, TypeError, "seconds must be an int or a float, not '1'"),
    (faults.Latency, (True,), {}, TypeError, "seconds must be an int or a float, not True"),
    (faults.Latency, (1, -0.5), {}, ValueError, "jitter must not be negative, nor infinite, but is -0.5"),
    (faults.Latency, (10**400,), {}, ValueError, f"seconds must be from 0 to 1.8e+308, not {10**400}"),
    (faults.Latency, (-(10**400),), {}, ValueError, f"seconds must be from 0 to 1.8e+308, not {-(10**400)}"),
    (
        faults.Latency,
        (10**5000,),
        {},
        ValueError,
        "seconds must be from 0 to 1.8e+308, not an int of too many digits to be shown",
    ),
    (faults.Latency, (1e308, 1e308), {}, ValueError, "seconds + jitter must not be negative, nor infinite, but is inf"),
    (
        faults.Latency,
        (10**308, 10**308),
        {},
        ValueError,
        f"seconds + jitter must be from 0 to 1.8e+308, not {2 * 10**308}",
    ),
    (faults.Latency, (1, float("nan")), {}, ValueError, "jitter must not be negative, nor infinite, but is nan"),
    (faults.Latency, (1, 10**400), {}, ValueError, f"jitter must be from 0 to 1.8e+308, not {10**400}"),
    *(
        (fault, (number,), {}, TypeError, f"{name} must be an int or a float, not {number!r}")
        for fault, name in [(faults.Latency, "seconds"), (faults.Throttle, "bytes_per_second")]
        for number in [Decimal(1), Decimal("nan"), Fraction(1, 3), 1j]
    ),
    (faults.Throttle, (10**400,), {}, ValueError, f"bytes_per_second must be from 0 to 1.8e+308, not {10**400}"),
    (
        faults.Throttle,
        (float("inf"),),
        {},
        ValueError,
        "bytes_per_second must not be negative, nor infinite, but is inf",
    ),
    (
        faults.Throttle,
        (float("nan"),),
        {},
        ValueError,
        "bytes_per_second must not be negative, nor infinite, but is nan",
    ),
    *(
        (fault, (), {"after": after}, error, f"after must {says}")
        for fault in ON_THE_WIRE
        for after, error, says in [
            (float("nan"), TypeError, "be an int, a number of bytes, or None, not nan"),
            (-(10**5000), ValueError, "not be negative, but is an int of too many digits to be shown"),
        ]
    ),
    (
        faults.Respond,
        (10**5000,),
        {},
        ValueError,
        "status must be an int from 200 to 999, not an int of too many digits to be shown",
    ),
    (faults.Latency, (1, 2), {}, ValueError, "jitter must be from 0 to seconds, 1, not 2"),
    (faults.Latency, (1, None), {}, TypeError, "jitter must be an int or a float, not None"),
    (faults.Throttle, (0,), {}, ValueError, "bytes_per_second must be more than 0, not 0"),
    (faults.Throttle, (-5,), {}, ValueError, "bytes_per_second must not be negative, nor infinite, but is -5"),
    (faults.Throttle, ("fast",), {}, TypeError, "bytes_per_second must be an int or a float, not 'fast'"),
    *(
        (faults.Respond, (status,), {}, ValueError, f"status must be an int from 200 to 999, not {status!r}")
        for status in (100, 101, 199, 1000, "200", 200.0, True, None)
    ),
    (faults.Respond, (200, (), None), {}, TypeError, "body must be bytes or a str, not None"),
    (faults.Respond, (200, (), bytearray(b"x")), {}, TypeError, "body must be bytes or a str, not bytearray(b'x')"),
]


@pytest.mark.parametrize(
    ("fault", "args", "kwargs", "error", "message"),
    MISTAKES,
    ids=[f"{fault.__name__}-{message}" for fault, _, _, _, message in MISTAKES],
)
def test_a_fault_that_makes_no_sense_is_refused(
    fault: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        fault(*args, **kwargs)


BAD_HEADERS: list[Any] = [
    {"na me": "x"},
    {"name": "x\r\ny"},
    {"": "x"},
    [("content-length", "x")],
    [("name", "\N{SNOWMAN}")],
    [("name", 1)],
    [("name",)],
    ["name"],
    "name",
    None,
    7,
]


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=map(repr, BAD_HEADERS))
def test_headers_that_cannot_be_sent_are_refused(headers: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"(?i)header|content-length"):
        faults.Respond(200, headers)


# Services for the faults.


class Service:
    """Answers every request with its name, and counts the requests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name.encode()})


class Gateway(Service):
    """Calls the service that its path names, and returns its status."""

    session: ClientSession

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.session.get(f"http://app.internal{scope['path']}") as response:
            await send({"type": "http.response.start", "status": response.status, "headers": []})
        await send({"type": "http.response.body"})


TEAPOT = faults.Respond(418)


async def statuses(session: ClientSession, *urls: str, method: str = "GET") -> list[int]:
    """For one request after another."""
    found = []
    for url in urls:
        async with session.request(method, url) as response:
            await response.read()
            found.append(response.status)
    return found


# The parameters of a block.

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fault": faults.Reset}, TypeError, "fault must be one of asgi_connector.faults, such as faults.Reset(), not"),
    ({"fault": None}, TypeError, "fault must be one of asgi_connector.faults, such as faults.Reset(), not None"),
    ({"times": 0}, ValueError, "times must be 1 or more, not 0"),
    ({"times": -1}, ValueError, "times must be 1 or more, not -1"),
    ({"times": 1.0}, TypeError, "times must be an int, not 1.0"),
    ({"times": True}, TypeError, "times must be an int, not True"),
    ({"skip": -1}, ValueError, "skip must be 0 or more, not -1"),
    ({"skip": "1"}, TypeError, "skip must be an int, not '1'"),
    ({"skip": None}, TypeError, "skip must be an int, not None"),
    ({"probability": 0}, ValueError, "probability must be more than 0, and no more than 1, not 0"),
    ({"probability": 1.1}, ValueError, "probability must be more than 0, and no more than 1, not 1.1"),
    ({"probability": float("nan")}, ValueError, "probability must be more than 0, and no more than 1, not nan"),
    ({"probability": "1"}, TypeError, "probability must be an int or a float, not '1'"),
    ({"probability": True}, TypeError, "probability must be an int or a float, not True"),
    ({"probability": float("inf")}, ValueError, "probability must be more than 0, and no more than 1, not inf"),
    ({"probability": 10**400}, ValueError, f"probability must be more than 0, and no more than 1, not {10**400}"),
    ({"probability": 10**5000}, ValueError, "probability must be more than 0, and no more than 1, not an int of too"),
    ({"probability": Fraction(1, 2)}, TypeError, "probability must be an int or a float, not Fraction(1, 2)"),
    ({"times": float("nan")}, TypeError, "times must be an int, not nan"),
    ({"times": -(10**5000)}, ValueError, "times must be 1 or more, not an int of too many digits to be shown"),
    ({"skip": float("inf")}, TypeError, "skip must be an int, not inf"),
    ({"seed": float("nan")}, ValueError, "seed must be a finite number, not nan"),
    ({"seed": float("-inf")}, ValueError, "seed must be a finite number, not -inf"),
    ({"seed": True}, TypeError, "seed must be an int, a float, a str or bytes, not True"),
    ({"seed": Decimal(1)}, TypeError, "seed must be an int, a float, a str or bytes, not Decimal('1')"),
    ({"seed": "\ud800"}, ValueError, "seed must be text that UTF-8 can encode, not '\\ud800'"),
    ({"seed": object}, TypeError, "seed"),
    ({"seed": None}, TypeError, "seed"),
    ({"method": b"GET"}, TypeError, "method must be a str, not b'GET'"),
    ({"path": "charges"}, ValueError, "path must start with a slash and be without a query, not 'charges'"),
    ({"path": "/charges?a=b"}, ValueError, "path must start with a slash and be without a query, not '/charges?a=b'"),
    ({"path": 7}, TypeError, "path must be a str or a compiled pattern of str, not 7"),
    ({"path": re.compile(b"/")}, TypeError, "path must be a str or a compiled pattern of str, not"),
    ({"caller": 7}, TypeError, "caller must be a host pattern, None, or left out, not 7"),
    ({"caller": "orders/v1"}, ValueError, "'orders/v1'"),
    ({"host": "app.internal/v1"}, ValueError, "'app.internal/v1'"),
    ({"host": ""}, ValueError, "''"),
    ({"host": None}, TypeError, "None"),
    ({"host": 7}, TypeError, "7"),
]


@pytest.mark.parametrize(
    ("wrong", "error", "message"), WRONG, ids=[f"{list(wrong)}-{message}" for wrong, _, message in WRONG]
)
async def test_a_block_that_makes_no_sense_is_refused_before_anything_changes(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings: dict[str, Any] = {"host": "app.internal", "fault": TEAPOT, **wrong}
    async with session_to(Service("app")) as session:
        with pytest.raises(error, match=re.escape(message)):
            connector_of(session).inject(settings.pop("host"), settings.pop("fault"), **settings)
        assert await statuses(session, "/") == [200]


async def test_everything_but_host_and_fault_is_given_by_name() -> None:
    async with session_to(Service("app")) as session:
        with pytest.raises(TypeError):
            connector_of(session).inject("app.internal", TEAPOT, None)  # type: ignore[call-arg]


async def test_a_block_that_is_not_entered_does_nothing() -> None:
    async with session_to(Service("app")) as session:
        block = connector_of(session).inject("app.internal", TEAPOT)
        assert await statuses(session, "/") == [200]
        assert (block.matched, block.affected) == (0, 0)
        with pytest.warns(RuntimeWarning, match="was never entered, so it did nothing"):
            del block


@pytest.mark.parametrize("host", ["other.internal", "app.internal:8080", "*.example", "[::1]"])
@pytest.mark.parametrize("with_fallback", [False, True])
async def test_a_host_that_is_not_mounted_cannot_be_shaken(host: str, with_fallback: bool) -> None:
    settings = {"fallback": Elsewhere()} if with_fallback else {}
    async with session_to({"app.internal:80": Service("app")}, **settings) as session:
        with pytest.raises(ValueError, match="is not mounted, and the fallback cannot be shaken") as caught:
            connector_of(session).inject(host, TEAPOT)
        assert str(caught.value).startswith(f"{host!r} is not mounted, and the fallback cannot be shaken. ")
        assert "app.internal" in str(caught.value)


async def test_a_host_that_is_mounted_no_more_cannot_be_shaken() -> None:
    async with session_to(Service("app")) as session:
        await connector_of(session).unmount("app.internal")
        with pytest.raises(ValueError, match=r"^'app\.internal' is not mounted"):
            connector_of(session).inject("app.internal", TEAPOT)


async def test_what_is_mounted_later_is_shaken_too() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.inject("*", TEAPOT) as block:
            async with connector.mounted("other.internal", Service("other")):
                assert await statuses(session, "http://other.internal/") == [418]
            assert block.affected == 1


MOUNTS = ["users.internal", "orders.internal:8080", "*.shop.internal", "https://pay.internal", "*"]
URLS = [
    "http://users.internal/",
    "http://users.internal:8080/",
    "https://users.internal/",
    "http://orders.internal:8080/",
    "http://eu.shop.internal/",
    "http://us.shop.internal:81/",
    "https://pay.internal/",
    "http://else.where/",
]


@pytest.mark.parametrize(
    ("host", "struck"),
    [
        ("users.internal", {0, 1, 2}),
        ("USERS.internal", {0, 1, 2}),
        ("users.internal:80", {0}),
        ("users.internal:8080", {1}),
        ("https://users.internal", {2}),
        ("*.internal", set(range(7))),
        ("*.internal:8080", {1, 3}),
        ("*.shop.internal", {4, 5}),
        ("eu.shop.internal", {4}),
        ("https://*", {2, 6}),
        ("*:81", {5}),
        ("*", set(range(8))),
        ("else.where", {7}),
    ],
)
async def test_the_host_is_a_pattern_as_in_the_table_of_mounts(host: str, struck: set[int]) -> None:
    async with session_to({pattern: Service(pattern) for pattern in MOUNTS}) as session:
        with connector_of(session).inject(host, TEAPOT) as block:
            assert await statuses(session, *URLS) == [418 if n in struck else 200 for n in range(len(URLS))]
        assert (block.matched, block.affected) == (len(struck), len(struck))
        assert await statuses(session, *URLS) == [200] * len(URLS)


async def test_what_the_fallback_answers_is_not_shaken() -> None:
    async with (
        tcp_server() as tcp,
        session_to(Service("app"), fallback=aiohttp.TCPConnector()) as session,
    ):
        with connector_of(session).inject("*", TEAPOT, times=1) as block:
            async with session.get(tcp.url) as response:
                assert (response.status, await response.read()) == (200, b"over TCP")
            assert (block.matched, block.affected) == (0, 0)
            assert await statuses(session, "/") == [418]


async def test_a_connector_of_one_app_is_shaken_at_every_host() -> None:
    async with ClientSession(connector=ASGIApplicationConnector(Service("app"), lifespan="off")) as session:
        with connector_of(session).inject("users.internal", TEAPOT):
            assert await statuses(session, "http://users.internal/", "http://orders.internal/") == [418, 200]


@pytest.mark.parametrize(
    ("criteria", "struck"),
    [
        ({}, [418, 418, 418, 418]),
        ({"method": "POST"}, [200, 200, 200, 418]),
        ({"method": "post"}, [200, 200, 200, 418]),
        ({"path": "/a b"}, [200, 418, 200, 200]),
        ({"path": "/a%20b"}, [200, 200, 200, 200]),
        ({"path": re.compile("/a.*")}, [418, 418, 200, 418]),
        ({"path": re.compile("/a")}, [418, 200, 200, 418]),
        ({"path": "/a", "method": "GET"}, [418, 200, 200, 200]),
    ],
)
async def test_method_and_path_choose_what_is_struck(criteria: dict[str, Any], struck: list[int]) -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT, allow_unused=True, **criteria) as block:
            found = await statuses(session, "/a?q=1", "/a%20b", "/b/a")
            found += await statuses(session, "/a", method="POST")
        assert found == struck
        assert block.matched == block.affected == struck.count(418)


@pytest.mark.parametrize(
    ("caller", "direct", "through"),
    [(..., 418, 418), (None, 418, 200), ("gateway.internal", 200, 418), ("app.internal", 200, 200)],
    ids=["any", "outside", "gateway", "app"],
)
async def test_one_link_is_struck_and_not_the_other(caller: Any, direct: int, through: int) -> None:
    gateway = Gateway("gateway")
    async with session_to({"app.internal": Service("app"), "gateway.internal": gateway}) as session:
        gateway.session = session
        with connector_of(session).inject("app.internal", TEAPOT, caller=caller, allow_unused=True):
            assert await statuses(session, "http://gateway.internal/") == [through]
            assert await statuses(session, "/") == [direct]


@pytest.mark.parametrize(
    ("settings", "struck"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"times": 1}, [0]),
        ({"times": 2}, [0, 1]),
        ({"times": 100}, [0, 1, 2, 3, 4, 5]),
        ({"skip": 2}, [2, 3, 4, 5]),
        ({"skip": 1, "times": 3}, [1, 2, 3]),
        ({"skip": 5}, [5]),
    ],
    ids=str,
)
async def test_so_many_are_struck_after_so_many_that_pass(settings: dict[str, Any], struck: list[int]) -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT, **settings) as block:
            found = await statuses(session, *["/"] * 6)
        assert [n for n, status in enumerate(found) if status == 418] == struck
        assert (block.matched, block.affected) == (6, len(struck))


@pytest.mark.parametrize("seed", [0, 1, 0.5, "a seed", b"bytes"])
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_what_is_left_to_chance_is_drawn_once_for_each_request_in_order_of_start(
    seed: Any, at_once: bool
) -> None:
    chance = random.Random(seed)
    drawn = [418 if chance.random() < 0.5 else 200 for _ in range(20)]
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT, probability=0.5, seed=seed) as block:
            if at_once:
                found = await asyncio.gather(*(statuses(session, "/") for _ in drawn))
                assert [status for (status,) in found] == drawn
            else:
                assert await statuses(session, *["/"] * len(drawn)) == drawn
        assert (block.matched, block.affected) == (20, drawn.count(418))
        assert 0 < block.affected < 20


async def test_the_seed_is_zero_if_it_is_left_out() -> None:
    async with session_to(Service("app")) as session:
        runs = []
        choices: list[dict[str, Any]] = [{}, {"seed": 0}, {"seed": 1}]
        for settings in choices:
            with connector_of(session).inject("app.internal", TEAPOT, probability=0.5, **settings):
                runs.append(await statuses(session, *["/"] * 20))
        assert runs[0] == runs[1] != runs[2]


async def test_skip_and_times_count_what_matches_and_what_is_struck_whatever_chance_does() -> None:
    chance = random.Random(3)
    drawn = [chance.random() < 0.5 for _ in range(20)]
    hits = [n for n, hit in enumerate(drawn) if hit and n >= 4][:3]
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT, probability=0.5, seed=3, skip=4, times=3) as block:
            found = await statuses(session, *["/"] * 20)
        assert [n for n, status in enumerate(found) if status == 418] == hits
        assert (block.matched, block.affected) == (20, 3)


INNER = [faults.Respond(500), faults.Refuse(), faults.Unresolvable(), faults.Reset()]


@pytest.mark.parametrize("inner", INNER, ids=repr)
async def test_what_an_inner_block_strikes_takes_a_draw_of_the_outer_one_too(inner: faults.Fault) -> None:
    chance = random.Random(7)
    drawn = [418 if chance.random() < 0.5 else 200 for _ in range(12)]
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.inject("app.internal", TEAPOT, probability=0.5, seed=7) as outer:
            with connector.inject("app.internal", inner, times=4):
                for _ in range(4):
                    try:
                        # Not a method that aiohttp would send again.
                        async with session.post("/") as response:
                            await response.read()
                    except aiohttp.ClientConnectionError:
                        pass
            assert await statuses(session, *["/"] * 8) == drawn[4:]
        assert outer.matched == 12


async def test_new_connections_and_pooled_ones_are_the_same_to_a_block() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", TEAPOT, skip=1, times=2):
            assert await statuses(session, *["/"] * 4) == [200, 418, 418, 200]
        assert [exchange.reused for exchange in journal] == [False, True, True, True]


async def test_a_redirect_is_two_requests() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 302, "headers": [(b"location", b"/there")]})
        await send({"type": "http.response.body"})

    async with session_to(app) as session:
        with connector_of(session).inject("app.internal", TEAPOT, skip=1) as block:
            assert await statuses(session, "/here") == [418]
        assert (block.matched, block.affected) == (2, 1)


async def test_the_second_try_of_aiohttp_is_a_request_of_its_own() -> None:
    app = Service("app")
    async with session_to(app) as session:
        await statuses(session, "/")
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", faults.Reset("request"), times=1) as block:
            assert await statuses(session, "/") == [200]
        assert (block.matched, block.affected) == (2, 1)
        assert [exchange.state for exchange in journal] == ["failed", "done"]


# The end of a block.

HINT = "A fault that met no request has tested nothing; allow_unused=True permits it."


async def test_a_block_that_no_request_went_through_fails() -> None:
    async with session_to(Service("app")) as session:
        with pytest.raises(AssertionError) as caught, connector_of(session).inject("app.internal", faults.Reset()):
            pass
        assert str(caught.value) == (
            "Reset(on='response', after=None) has affected no request: there was no request to 'app.internal' while it "
            f"was injected.\nThere was no call at all.\n{HINT}"
        )


async def test_a_block_that_strikes_nothing_fails_with_the_calls_there_were() -> None:
    mounts = {"app.internal": Service("app"), "mail.internal": Service("mail")}
    async with session_to(mounts) as session:
        await statuses(session, "/before")
        with (
            pytest.raises(AssertionError) as caught,
            connector_of(session).inject("app.internal", faults.Refuse(), caller=None, method="post", path="/pay"),
        ):
            await statuses(session, "http://mail.internal/send", "/pay")
        assert str(caught.value) == (
            "Refuse() has affected no request: there was no request to 'app.internal', caller=None, method='post', "
            "path='/pay' while it was injected.\n"
            "The calls there were, the nearest first:\n"
            "  GET http://app.internal/pay: 200\n"
            "    method is 'GET'\n"
            "  GET http://mail.internal/send: 200\n"
            "    host is 'mail.internal', port 80, method is 'GET', path is '/send'\n"
            f"{HINT}"
        )


@pytest.mark.parametrize("number", [1, 2])
async def test_a_block_that_skips_all_there_was_fails(number: int) -> None:
    async with session_to(Service("app")) as session:
        with pytest.raises(AssertionError) as caught, connector_of(session).inject("app.internal", TEAPOT, skip=2):
            await statuses(session, *["/"] * number)
        message = str(caught.value)
        said = f"it was to skip 2 requests to 'app.internal', and met {number}."
        assert message.startswith(f"Respond(status=418) has affected no request: {said}\n")
        assert message.count("GET http://app.internal/: 200") == number
        assert message.endswith(HINT)


async def test_a_block_whose_requests_an_inner_one_has_answered_says_so() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with (
            pytest.raises(AssertionError, match="has affected no request") as caught,
            connector.inject("app.internal", faults.Respond(503)) as outer,
            connector.inject("app.internal", TEAPOT) as inner,
        ):
            assert await statuses(session, "/") == [418]
        assert (outer.matched, outer.affected, inner.affected) == (1, 0, 1)
        assert "skip" not in str(caught.value)


async def test_a_block_may_be_permitted_to_strike_nothing() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.inject("app.internal", TEAPOT, allow_unused=True) as block:
            pass
        with connector.inject("app.internal", TEAPOT, allow_unused=True, skip=1):
            assert await statuses(session, "/") == [200]
        assert (block.matched, block.affected) == (0, 0)


async def test_that_chance_has_struck_nothing_is_no_failure_of_its_block() -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT, probability=1e-9) as block:
            assert await statuses(session, *["/"] * 5) == [200] * 5
        assert (block.matched, block.affected) == (5, 0)


async def test_chance_without_a_request_is_a_failure() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with (
            pytest.raises(AssertionError, match="has affected no request"),
            connector.inject("app.internal", TEAPOT, probability=1e-9),
        ):
            pass


ERRORS = [KeyError("the test's own"), AssertionError("this too"), asyncio.CancelledError(), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
async def test_an_exception_of_the_body_is_not_replaced(error: BaseException) -> None:
    async with session_to(Service("app")) as session:
        with pytest.raises(type(error)) as caught, connector_of(session).inject("app.internal", TEAPOT):
            raise error
        assert caught.value is error
        assert await statuses(session, "/") == [200]


async def test_a_block_is_entered_once() -> None:
    async with session_to(Service("app")) as session:
        block = connector_of(session).inject("app.internal", TEAPOT)
        with block as entered:
            assert entered is block
            with pytest.raises(RuntimeError, match=r"has been entered before: call inject\(\) for each block"), block:
                pass
            assert await statuses(session, "/") == [418]
        with pytest.raises(RuntimeError, match="has been entered before"), block:
            pass
        assert await statuses(session, "/") == [200]


async def test_a_block_shows_its_counts() -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", faults.Reset(), skip=1, allow_unused=True) as block:
            await statuses(session, "/")
            assert repr(block) == "<Injection of Reset(on='response', after=None), 1 matched, 0 affected>"
            assert block.struck == block.affected  # its earlier name
        assert block.fault == faults.Reset()


async def test_blocks_may_end_in_any_order() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        first = connector.inject("app.internal", faults.Respond(501))
        second = connector.inject("app.internal", faults.Respond(502))
        first.__enter__()
        second.__enter__()
        assert await statuses(session, "/") == [502]
        second.__exit__(None, None, None)
        assert await statuses(session, "/") == [501]
        third = connector.inject("app.internal", faults.Respond(503))
        third.__enter__()
        first.__exit__(None, None, None)
        assert await statuses(session, "/") == [503]
        third.__exit__(None, None, None)
        assert await statuses(session, "/") == [200]


async def test_a_block_ends_though_the_connector_was_closed_in_it() -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", TEAPOT) as block:
            assert await statuses(session, "/") == [418]
            await session.close()
        assert block.affected == 1


async def test_a_request_that_started_in_a_block_is_struck_though_it_has_ended() -> None:
    """An app is starting in the meantime."""
    may_start = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await may_start.wait()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async with session_to(app, lifespan="on") as session:
        with connector_of(session).inject("app.internal", faults.Reset()) as block:
            request = asyncio.create_task(statuses(session, "/"))
            assert await until_it_stops(lambda: block.matched) == 1
        may_start.set()
        # The fault acts on bytes while the block is open, and there were no bytes yet.
        assert await request == [200]
        assert block.affected == 1


# Nested blocks.


REFUSED, UNKNOWN = aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError
NESTED: list[tuple[faults.Fault, faults.Fault, int | type[BaseException], tuple[int, int]]] = [
    # The outer fault, the inner fault, the result, and how many requests each has affected.
    (faults.Respond(501), faults.Respond(502), 502, (0, 1)),
    (faults.Refuse(), faults.Respond(502), 502, (0, 1)),
    (faults.Respond(501), faults.Refuse(), REFUSED, (0, 1)),
    (faults.Unresolvable(), faults.Refuse(), REFUSED, (0, 1)),
    (faults.Refuse(), faults.Unresolvable(), UNKNOWN, (0, 1)),
    (faults.Reset(), faults.Refuse(), REFUSED, (0, 1)),
    (faults.Refuse(), faults.Reset(), REFUSED, (1, 0)),
    (faults.Reset(), faults.Respond(502), aiohttp.ClientOSError, (1, 1)),
    (faults.Respond(502), faults.Reset(), aiohttp.ClientOSError, (1, 1)),
    (faults.Reset(), faults.Close(), aiohttp.ServerDisconnectedError, (1, 1)),
    (faults.Close(), faults.Reset(), aiohttp.ClientOSError, (1, 1)),
]


@pytest.mark.parametrize(
    ("outer", "inner", "expected", "struck"),
    NESTED,
    ids=[f"{type(outer).__name__}-{type(inner).__name__}" for outer, inner, _, _ in NESTED],
)
async def test_nested_blocks_combine_the_innermost_first(
    outer: faults.Fault, inner: faults.Fault, expected: int | type[BaseException], struck: tuple[int, int]
) -> None:
    app = Service("app")
    async with session_to(app) as session:
        connector = connector_of(session)
        with (
            connector.record() as journal,
            connector.inject("app.internal", outer, allow_unused=True) as around,
            connector.inject("app.internal", inner, allow_unused=True) as within,
        ):
            if isinstance(expected, int):
                assert await statuses(session, "/", method="POST") == [expected]
            else:
                with pytest.raises((aiohttp.ClientError, OSError)) as caught:
                    await statuses(session, "/", method="POST")
                assert isinstance(caught.value, expected)
                assert (type(caught.value) is UNKNOWN) == (expected is UNKNOWN)
        assert (around.matched, within.matched) == (1, 1)
        assert (around.affected, within.affected) == struck
        assert journal[0].fault is (inner if struck[1] else outer)
        # The bytes are cut between the app and the client, so it must be the app that answers.
        byte_faults_only = isinstance(outer, faults.Reset | faults.Close) and isinstance(
            inner, faults.Reset | faults.Close
        )
        assert len(app.paths) == byte_faults_only


async def test_a_connection_that_hangs_is_answered_by_the_inner_block_when_the_outer_one_ends() -> None:
    app = Service("app")
    async with session_to(app) as session:
        connector = connector_of(session)
        hang = connector.inject("app.internal", faults.Hang(on="connect"))
        respond = connector.inject("app.internal", TEAPOT)
        hang.__enter__()
        with respond:
            request = asyncio.create_task(statuses(session, "/"))
            assert await until_it_stops(lambda: respond.affected) == 1
            assert not request.done()
            hang.__exit__(None, None, None)
            assert await request == [418]
        assert (hang.affected, app.paths) == (1, [])


@pytest.mark.parametrize("outer_first", [True, False])
async def test_refused_or_silent_the_innermost_comes_first(outer_first: bool) -> None:
    """With the refusal inside, nothing has to be waited for. With the hang inside, its end has to."""
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        refuse = connector.inject("app.internal", faults.Refuse())
        hang = connector.inject("app.internal", faults.Hang(on="connect"), allow_unused=True)
        for block in (hang, refuse) if outer_first else (refuse, hang):
            block.__enter__()
        request = asyncio.create_task(statuses(session, "/"))
        assert await until_it_stops(lambda: refuse.affected) == 1
        if not outer_first:
            await asyncio.sleep(0)
            assert not request.done()
            hang.__exit__(None, None, None)
        with pytest.raises(aiohttp.ClientConnectorError):
            await request
        refuse.__exit__(None, None, None)
        if outer_first:
            hang.__exit__(None, None, None)


async def test_blocks_of_other_hosts_have_nothing_to_do_with_each_other() -> None:
    mounts: dict[str, ASGIApp | Mount] = {"a.internal": Service("a"), "b.internal": Service("b")}
    async with session_to(mounts) as session:
        connector = connector_of(session)
        with (
            connector.inject("a.internal", faults.Respond(501)) as a,
            connector.inject("b.internal", faults.Respond(502)) as b,
        ):
            assert await statuses(session, "http://a.internal/", "http://b.internal/") == [501, 502]
        assert (a.matched, b.matched) == (1, 1)


async def test_two_connectors_have_blocks_of_their_own() -> None:
    async with session_to(Service("a")) as one, session_to(Service("b")) as other:
        with connector_of(one).inject("app.internal", TEAPOT):
            assert await statuses(other, "/") == [200]
            assert await statuses(one, "/") == [418]


# Where a block may be used.


async def test_a_block_of_another_loop_is_refused() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)

        def elsewhere() -> None:
            async def inject() -> None:
                with pytest.raises(RuntimeError, match="belongs to"):
                    connector.inject("app.internal", TEAPOT)

            asyncio.run(inject())

        await asyncio.to_thread(elsewhere)


def test_a_block_in_a_fixture_that_is_no_coroutine() -> None:
    """Such a fixture runs in the thread of the event loop while the loop does not run."""

    async def open_session() -> ClientSession:
        return ClientSession(connector=ASGIRoutingConnector({"app.internal": Service("app")}, lifespan="off"))

    with asyncio.Runner() as runner:
        session = runner.run(open_session())
        with connector_of(session).inject("app.internal", TEAPOT):
            assert runner.run(statuses(session, "http://app.internal/")) == [418]
        assert runner.run(statuses(session, "http://app.internal/")) == [200]
        runner.run(session.close())


async def test_a_block_is_not_for_another_thread() -> None:
    async with session_to(Service("app")) as session:
        with pytest.raises(RuntimeError, match="cannot be used where no event loop runs"):
            await asyncio.to_thread(connector_of(session).inject, "app.internal", TEAPOT)


async def test_there_is_nothing_to_observe_at_a_closed_connector() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
    with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
        connector.inject("app.internal", TEAPOT)
    with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
        connector.record()


async def test_the_journal_of_a_test_does_not_see_that_a_block_keeps_one_of_its_own() -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        fault = faults.Respond(503, body="no")
        with connector.record(bodies=True) as journal, connector.inject("app.internal", fault, times=1):
            assert await statuses(session, *["/"] * 2) == [503, 200]
        assert isinstance(journal, Journal)
        assert [type(exchange).__mro__[-2] for exchange in journal] == [Exchange, Exchange]
        assert [exchange.via for exchange in journal] == ["fault", "app"]
        assert [exchange.response.body for exchange in journal if exchange.response] == [b"no", b"app"]


async def test_a_request_that_is_given_up_as_the_block_ends_is_let_go() -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", faults.Hang("connect")) as injected:
            request = asyncio.create_task(session.get("http://app.internal/"))
            await until_it_stops(lambda: injected.affected)
            request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_a_block_remembers_the_latest_calls_only() -> None:
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", faults.Reset(), path="/never", allow_unused=True) as injected:
            for number in range(250):
                await session.get(f"http://app.internal/{number}")
            assert injected._calls is not None
            kept = [exchange.number for exchange in injected._calls._journal]
        assert kept == list(range(100, 250))


def test_an_answer_whose_length_is_another_than_it_says_is_refused() -> None:
    assert faults.Respond(200, {"Content-Length": "2"}, "ok").raw_headers == ((b"Content-Length", b"2"),)
    with pytest.raises(ValueError, match="the Content-Length is 3, but the body has 2 bytes"):
        faults.Respond(200, {"Content-Length": "3"}, "ok")


STATUSES_WITHOUT_A_BODY = [204, 304]


@pytest.mark.parametrize("status", STATUSES_WITHOUT_A_BODY)
@pytest.mark.parametrize("body", [b"x", "x"], ids=["bytes", "str"])
def test_an_answer_that_can_have_no_body_is_given_none(status: int, body: bytes | str) -> None:
    with pytest.raises(ValueError, match=rf"^a response of status {status} has no body, but this has b'x'$"):
        faults.Respond(status, body=body)


@pytest.mark.parametrize("status", STATUSES_WITHOUT_A_BODY)
async def test_an_answer_without_a_body_says_nothing_of_a_length(status: int) -> None:
    fault = faults.Respond(status, {"X-From": "proxy"})
    assert fault.raw_headers == ((b"X-From", b"proxy"),)
    async with session_to(Service("app")) as session:
        with connector_of(session).inject("app.internal", fault):
            async with session.get("/") as response:
                assert (response.status, await response.read()) == (status, b"")
                assert "Content-Length" not in response.headers
            assert await statuses(session, "/") == [status]


def test_an_answer_with_a_dict_of_headers_has_a_hash() -> None:
    fault, same = faults.Respond(503, {"a": "b"}, "no"), faults.Respond(503, {"a": "b"}, "no")
    assert hash(fault) == hash(same)
    assert {fault: 1}[same] == 1
    assert len({fault, same, faults.Respond(503, {"a": "c"}, "no"), faults.Respond(503, [("a", "b")], "no")}) == 3


@pytest.mark.parametrize("fault", [fault for fault, _ in DESCRIPTIONS], ids=[text for _, text in DESCRIPTIONS])
def test_a_fault_can_be_copied_and_pickled(fault: faults.Fault) -> None:
    assert copy.copy(fault) == fault
    assert copy.deepcopy(fault) == fault
    assert pickle.loads(pickle.dumps(fault)) == fault


@pytest.mark.programs
@pytest.mark.parametrize(
    "program",
    [
        "import asgi_connector.faults; print(asgi_connector.faults.Reset())",
        "import asgi_connector.faults as faults; print(faults.Reset())",
        "from asgi_connector.faults import Reset; print(Reset())",
        "from asgi_connector import faults; print(faults.Reset())",
        "import asgi_connector; print(asgi_connector.faults.Reset())",
    ],
)
def test_faults_is_a_module(program: str) -> None:
    assert run_python("-c", program) == f"{faults.Reset()!r}\n"
    assert importlib.import_module("asgi_connector.faults") is faults


def test_the_module_shows_what_is_public_of_it() -> None:
    assert dir(faults) == sorted(faults.__all__)
    shown = {faults.Held, faults.Dropped, faults.Crashed}
    blocks = {faults.Injection, faults.Partition, faults.Hold, faults.HeldMessage}
    exploring = {faults.Shake, faults.Report, faults.Finding, faults.Plan, faults.PlannedFault, faults.CallName}
    others = {faults.Fault, faults.Incident, faults.explore}
    kinds = {getattr(faults, name) for name in faults.__all__} - others
    assert kinds == {*get_args(faults.Fault), *shown, *blocks, *exploring}
    assert set(get_args(faults.Incident)) == {*get_args(faults.Fault), *shown}
    for kind in kinds:
        assert repr(kind) == f"<class 'asgi_connector.faults.{kind.__name__}'>"


ENDED_MEANWHILE = [
    faults.Respond(503),
    faults.Hang(on="connect"),
    faults.Hang(on="request"),
    faults.Hang(),
    faults.Reset(on="request"),
    faults.Reset(),
    faults.Close(),
    faults.Latency(1000),
    faults.Throttle(0.001),
]


@pytest.mark.parametrize("fault", ENDED_MEANWHILE, ids=repr)
async def test_a_block_that_ends_while_a_request_waits_for_its_connection_does_nothing_to_it(
    fault: faults.Fault,
) -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", faults.Hang(on="connect")) as outer:
            with connector.inject("app.internal", fault) as inner:
                request = asyncio.create_task(statuses(session, "/", method="POST"))
                await until_it_stops(lambda: inner.matched)
            await until_it_stops(lambda: inner.matched)
            assert not request.done()
        async with asyncio.timeout(5):
            assert await request == [200]
        assert (outer.affected, journal[0].status, journal[0].state) == (1, 200, "done")
        assert journal[0].via == "app"


@pytest.mark.parametrize("fault", [faults.Refuse(), faults.Unresolvable(), *ENDED_MEANWHILE], ids=repr)
async def test_an_outer_block_that_ends_first_does_nothing_to_a_request_that_waits_for_an_inner_one(
    fault: faults.Fault,
) -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        outer = connector.inject("app.internal", fault)
        inner = connector.inject("app.internal", faults.Hang(on="connect"))
        with connector.record() as journal:
            outer.__enter__()
            inner.__enter__()
            request = asyncio.create_task(statuses(session, "/", method="POST"))
            await until_it_stops(lambda: inner.affected)
            outer.__exit__(None, None, None)
            await until_it_stops(lambda: inner.affected)
            assert not request.done()
            inner.__exit__(None, None, None)
            async with asyncio.timeout(5):
                assert await request == [200]
        assert (journal[0].status, journal[0].state, journal[0].via) == (200, "done", "app")


@pytest.mark.parametrize("inner", [faults.Refuse(), faults.Unresolvable()], ids=repr)
@pytest.mark.parametrize("outer", [faults.Hang(on="connect"), faults.Reset(), faults.Latency(1)], ids=repr)
async def test_what_stands_behind_a_connection_that_there_is_not_strikes_nothing(
    inner: faults.Fault, outer: faults.Fault
) -> None:
    async with session_to(Service("app")) as session:
        connector = connector_of(session)
        with connector.inject("app.internal", outer, allow_unused=True) as behind:
            with connector.inject("app.internal", inner) as nearer, pytest.raises(aiohttp.ClientConnectorError):
                await session.get("/")
            assert (nearer.matched, nearer.affected) == (1, 1)
            assert (behind.matched, behind.affected) == (1, 0)


def test_a_connector_whose_loop_is_closed_is_closed_though_a_request_waits_for_its_connection() -> None:
    async def begin() -> "tuple[ASGIRoutingConnector, asyncio.Task[aiohttp.ClientResponse]]":
        connector = ASGIRoutingConnector({"app.internal": Service("app")}, lifespan="off")
        session = ClientSession("http://app.internal", connector=connector)
        assert await statuses(session, "/") == [200]  # one is pooled
        injected = connector.inject("app.internal", faults.Hang(on="connect"))
        injected.__enter__()
        waiting = asyncio.create_task(session.post("/"))
        await until_it_stops(lambda: injected.affected)
        return connector, waiting

    loop = asyncio.new_event_loop()
    connector, waiting = loop.run_until_complete(begin())
    loop.close()
    transports = [each.transport for each in connector._services.in_flight.connections]
    connector._close()
    assert connector.closed
    assert all(transport.is_closing() for transport in transports)
    assert not waiting.done()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # the block can no longer be ended


async def test_a_call_that_the_fallback_has_answered_is_not_shown_as_one_that_matches() -> None:
    inner = ASGIRoutingConnector({"other.internal": Service("other")}, lifespan="off")
    async with session_to(Service("app"), fallback=inner) as session:
        with pytest.raises(AssertionError) as caught, connector_of(session).inject("*", faults.Reset()):
            assert await statuses(session, "http://other.internal/") == [200]
    text = f"{faults.Reset()!r} has affected no request: there was no request to '*' while it was injected."
    assert str(caught.value) == f"{text}\n{HINT}"


async def test_a_request_whose_app_is_unmounted_while_it_waits_is_not_struck_at_the_fallback() -> None:
    fallback = ASGIRoutingConnector({"app.internal": Service("elsewhere")}, lifespan="off")
    async with session_to({"app.internal": Service("app")}, fallback=fallback) as session:
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", faults.Reset()):
            with connector.inject("app.internal", faults.Hang("connect")) as silence:
                request = asyncio.create_task(statuses(session, "http://app.internal/"))
                await until_it_stops(lambda: silence.affected)
                await connector.unmount("app.internal")
            assert await request == [200]
        assert [(exchange.via, exchange.state) for exchange in journal] == [("fallback", "done")]
