"""Where a close frame ends in the bytes of a server, for every way to split the bytes."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector._aiohttp.close_frames import CloseFrameFinder
from tests.support.effort import examples


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size)
    return bytes([0x80 | opcode]) + length + payload


PAYLOADS = st.sampled_from([0, 1, 2, 125, 126, 127, 300, 65535, 65536]).map(lambda size: b"\x88\x02" * (size // 2 + 1))
FRAMES = st.tuples(st.sampled_from([0, 1, 2, 9, 10]), PAYLOADS).map(lambda each: frame(each[0], each[1][:-1]))
CLOSES = st.sampled_from([(b"", 1005), (b"\x0f\xa5", 4005), (b"\x03\xe8bye", 1000), (b"\x03\xe9" + b"x" * 123, 1001)])


@settings(max_examples=examples(200), deadline=None, database=None)
@given(st.lists(FRAMES, max_size=4), CLOSES, st.lists(FRAMES, max_size=2), st.lists(st.integers(0, 10_000)))
def test_the_first_close_frame_is_found_when_its_last_byte_has_come(
    before: list[bytes], close: tuple[bytes, int], after: list[bytes], cuts: list[int]
) -> None:
    payload, code = close
    stream = b"".join([*before, frame(8, payload)])
    finder = CloseFrameFinder()
    places = sorted({0, len(stream) - 1, *(cut % len(stream) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        assert finder.feed(stream[start:end]) is None
    assert finder.feed(stream[-1:] + b"".join(after)) == code


@pytest.mark.parametrize("size", [0, 5, 200, 70_000])
def test_it_is_found_byte_by_byte(size: int) -> None:
    stream = frame(2, b"\x88" * size) + frame(9, b"ping") + frame(8, struct.pack("!H", 4005))
    finder = CloseFrameFinder()
    found = [finder.feed(bytes([each])) for each in stream]
    assert found[-1] == 4005
    assert set(found[:-1]) == {None}


def test_there_may_be_none() -> None:
    finder = CloseFrameFinder()
    assert finder.feed(frame(1, b"x" * 1000) + frame(10, b"")) is None
    assert finder.feed(b"") is None
