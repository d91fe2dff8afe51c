"""The address of a request."""

from typing import NamedTuple


class Address(NamedTuple):
    """The host, the port and the scheme of a URL."""

    host: str
    port: int | None
    secure: bool
    """Whether the scheme is ``https`` or ``wss``."""

    @property
    def authority(self) -> str:
        """Host and port as in a URL (RFC 3986, 3.2): IPv6 in brackets, and without the default port of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port in (None, 443 if self.secure else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"
