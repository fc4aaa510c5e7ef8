"""The log of a server: a line of JSON each, without texts unless they are asked for."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

REQUESTS = "biasline.requests"


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message, and what is told besides."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        told["message"] = record.getMessage()
        told |= getattr(record, "told", {})
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def to_stderr(names: Sequence[str] = ("biasline", "uvicorn")) -> None:
    """Have loggers write so: ours and, where it is we who run it, uvicorn's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
