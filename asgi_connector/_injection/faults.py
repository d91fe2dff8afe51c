"""The faults that a connection may have, as data: they describe a failure and do nothing themselves.

``on="request"`` is the direction from the client to the app, ``on="response"`` the direction back. With ``after=None``
nothing of the request or response arrives. With ``after=N`` its head arrives, and N bytes of what follows, as they are
on the wire. One that is shorter than that arrives completely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.response import build_head
from asgi_connector._numbers import check_number, is_int, shown

Part = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The connection is refused, as if no server listened. The client raises `aiohttp.ClientConnectorError`."""

    __module__ = "asgi_connector.faults"


@dataclass(frozen=True, slots=True)
class Unresolvable:
    """The host name cannot be resolved. The client raises `aiohttp.ClientConnectorDNSError`."""

    __module__ = "asgi_connector.faults"


@dataclass(frozen=True, slots=True)
class Respond:
    """A response that the app does not send, such as one from a proxy in front of it. The app is not called.

    If the app has not started, it is not started for this request either.

    Parameters:
        status: the status (`int`), from 200 to 999.
        headers: a mapping or pairs of `str` or `bytes`; none by default. The framing is added.
        body: `bytes`, or a `str`, which is sent as UTF-8; empty by default.

    Raises `ValueError` or `TypeError` for a parameter that is invalid.
    """

    __module__ = "asgi_connector.faults"

    status: int
    # Neither is in the repr: a body may be large, and a header may be a secret.
    headers: Mapping[str, str] | Sequence[tuple[str | bytes, str | bytes]] = field(default=(), repr=False, hash=False)
    body: bytes | str = field(default=b"", repr=False)
    raw_headers: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False, compare=False)
    raw_body: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_int(self.status) or not 200 <= self.status <= 999:
            raise ValueError(f"status must be an int from 200 to 999, not {shown(self.status)}")
        if not isinstance(self.body, (bytes, str)):
            raise TypeError(f"body must be bytes or a str, not {self.body!r}")
        headers = _encoded_headers(self.headers)
        try:
            _, _, length, _ = build_head(self.status, headers, "GET", "1.1", close=False)
        except ASGIProtocolError as exc:
            raise ValueError(str(exc)) from None
        body = self.body.encode() if isinstance(self.body, str) else self.body
        if self.status in (204, 304):  # RFC 9110, 6.4.1
            if body:
                raise ValueError(f"a response of status {self.status} has no body, but this has {body!r}")
        elif length is None:
            headers.append((b"content-length", b"%d" % len(body)))
        elif length != len(body):
            raise ValueError(f"the Content-Length is {length}, but the body has {len(body)} bytes")
        object.__setattr__(self, "raw_headers", tuple(headers))
        object.__setattr__(self, "raw_body", body)


@dataclass(frozen=True, slots=True)
class Hang:
    """Bytes stop arriving, and neither end is told. No byte is lost: all of them arrive when the block ends.

    Parameters:
        on: ``"request"``, ``"response"`` (the default), or ``"connect"``: a new connection gets no answer.
        after: the number of bytes after the head that arrive (`int`; all of them if there are fewer). With `None`, the
            default, not even the head arrives.
    """

    __module__ = "asgi_connector.faults"

    on: Literal["connect", "request", "response"] = "response"
    after: int | None = None

    def __post_init__(self) -> None:
        _check_choice("on", self.on, ("connect", "request", "response"))
        _check_after(self.after)
        if self.on == "connect" and self.after is not None:
            raise ValueError(
                f"after must be left out with on='connect', where there is no head, but is {shown(self.after)}"
            )


@dataclass(frozen=True, slots=True)
class _Cut:
    on: Part = "response"
    after: int | None = None

    def __post_init__(self) -> None:
        _check_choice("on", self.on, ("request", "response"))
        _check_after(self.after)


class Reset(_Cut):
    """The connection is cut by a reset (RST), for both ends: the app sees that its client has disconnected.

    Parameters:
        on: ``"request"``: the app does not get the request, or the rest of it. ``"response"`` (the default): the app
            has done its work, and the response, or the rest of it, is lost.
        after: the number of bytes after the head that arrive (`int`; all of them if there are fewer). With `None`, the
            default, not even the head arrives.
    """

    __module__ = "asgi_connector.faults"

    __slots__ = ()


class Close(_Cut):
    """The connection is closed, as by a server (FIN), for both ends. Takes the same parameters as `Reset`."""

    __module__ = "asgi_connector.faults"

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Latency:
    """Every byte arrives late, by the same delay, once and in order. The size of the writes does not matter.

    Parameters:
        seconds: the delay, a number.
        jitter: seconds, 0 by default, and not more than *seconds*. The delay of each request is drawn from *seconds*
            minus *jitter* to *seconds* plus *jitter*.
        on: ``"request"``, or ``"response"``, the default.
    """

    __module__ = "asgi_connector.faults"

    seconds: float
    jitter: float = 0.0
    on: Part = "response"

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds)
        check_number("jitter", self.jitter)
        _check_choice("on", self.on, ("request", "response"))
        if not 0 <= self.jitter <= self.seconds:
            raise ValueError(f"jitter must be from 0 to seconds, {self.seconds!r}, not {self.jitter!r}")
        check_number("seconds + jitter", self.seconds + self.jitter)


@dataclass(frozen=True, slots=True)
class Throttle:
    """A slow link: bytes, including the head and the framing, arrive in slices at a limited rate.

    Parameters:
        bytes_per_second: the rate, a number above 0.
        on: ``"request"``, or ``"response"``, the default.
    """

    __module__ = "asgi_connector.faults"

    bytes_per_second: float
    on: Part = "response"

    def __post_init__(self) -> None:
        check_number("bytes_per_second", self.bytes_per_second)
        _check_choice("on", self.on, ("request", "response"))
        if not self.bytes_per_second > 0:
            raise ValueError(f"bytes_per_second must be more than 0, not {self.bytes_per_second!r}")


Fault: TypeAlias = Refuse | Unresolvable | Respond | Hang | Reset | Close | Latency | Throttle


# What is not injected: `Exchange.fault` shows it.


@dataclass(frozen=True, slots=True)
class Held:
    """A `hold()` block has kept the message at the end of its way.

    Parameters:
        on: ``"request"`` or ``"response"``: the message.
    """

    __module__ = "asgi_connector.faults"

    on: Part


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that a `hold()` block has kept was dropped, so it never arrives. Takes the same parameter as `Held`."""

    __module__ = "asgi_connector.faults"

    on: Part


@dataclass(frozen=True, slots=True)
class Crashed:
    """The app was down in a `crashed()` block: the request was cut off by the crash, or refused after it."""

    __module__ = "asgi_connector.faults"


Incident: TypeAlias = Fault | Held | Dropped | Crashed


@dataclass(frozen=True, slots=True)
class Silence:
    """What a `partition()` with a `Hang` does: nothing passes in either direction. It is shown as the `Hang`."""


def _encoded_headers(
    headers: Mapping[str, str] | Sequence[tuple[str | bytes, str | bytes]],
) -> list[tuple[bytes, bytes]]:
    try:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        return [(_encoded(name), _encoded(value)) for name, value in pairs]
    except UnicodeEncodeError as exc:
        raise ValueError(f"headers must be of Latin-1, not {exc.object!r}") from None
    except (TypeError, ValueError):
        raise TypeError(f"headers must be a mapping, or pairs of str or bytes, not {headers!r}") from None


def _encoded(value: str | bytes) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _check_after(after: int | None) -> None:
    if after is not None and not is_int(after):
        raise TypeError(f"after must be an int, a number of bytes, or None, not {after!r}")
    if after is not None and after < 0:
        raise ValueError(f"after must not be negative, but is {shown(after)}")
