"""The logger of the package."""

import logging
from typing import Final

logger: Final = logging.getLogger("asgi_connector")
