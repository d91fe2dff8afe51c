"""Where in the bytes of a WebSocket a close frame is (RFC 6455, 5.2 and 5.5.1). Imports nothing of the package."""

from typing import Final

_CLOSE: Final = 8
_NO_CODE: Final = 1005  # RFC 6455, 7.1.5


class CloseFrameFinder:
    """Finds the first close frame in the bytes that a server sends, which are not masked."""

    def __init__(self) -> None:
        self._kept = b""  # the beginning of a frame that is not whole
        self._to_skip = 0  # bytes of the payload of a frame

    def feed(self, data: bytes) -> int | None:
        """The next bytes; returns the code of the close frame that ends in them, 1005 if it has none."""
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
    """The opcode of the frame at *at*, and where its payload begins and ends; `None` if its head is not whole."""
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
