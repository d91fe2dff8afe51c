"""A close frame, and a search for one in the bytes of a WebSocket (RFC 6455, 5.2 and 5.5.1)."""

from typing import Final

SERVICE_RESTART: Final = b"\x88\x02\x03\xf4"
"""The close frame of a server that restarts, with the code 1012."""

_CLOSE: Final = 8
_NO_CODE: Final = 1005  # RFC 6455, 7.1.5


class CloseFrameFinder:
    """Finds the first close frame in the bytes that a server sends. They are not masked."""

    def __init__(self) -> None:
        self._kept = b""  # the beginning of an incomplete frame
        self._to_skip = 0  # bytes of a payload that are still to come

    def feed(self, data: bytes) -> int | None:
        """Take the next bytes. Returns the code of a close frame that ends in them; 1005 if it has no code."""
        if not self._kept and len(data) <= self._to_skip:
            self._to_skip -= len(data)
            return None
        data = self._kept + data[self._to_skip :]
        self._kept = b""
        at = self._to_skip = 0
        while (frame := _read_frame(data, at)) is not None:
            opcode, begin, end = frame
            if opcode == _CLOSE:
                if end > len(data):
                    break
                return int.from_bytes(data[begin : begin + 2], "big") if end - begin >= 2 else _NO_CODE
            at = min(end, len(data))
            self._to_skip = end - at
        self._kept = data[at:]
        return None


def _read_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return the opcode of the frame at *at*, and where its payload begins and ends; `None` if its head is cut off."""
    if len(data) - at < 2:
        return None
    length = data[at + 1] & 0x7F
    begin = at + 2
    extended = {126: 2, 127: 8}.get(length, 0)
    if len(data) - begin < extended:
        return None
    if extended:
        length = int.from_bytes(data[begin : begin + extended], "big")
        begin += extended
    return data[at] & 0x0F, begin, begin + length
