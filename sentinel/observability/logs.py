"""Logs: one JSON object a line on stderr, with secrets redacted and control characters escaped."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

from sentinel.observability.log_flood import Bounded

_MOST = 8192


def configure(level: str = "INFO") -> None:
    """Send everything that is logged, by structlog or by the standard library, through one formatter."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, render],
        )
    )
    handler.addFilter(brief)
    handler.addFilter(Bounded())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # These tell each start, stop and connection; what matters of it the supervisor says.
    for name in ("uvicorn", "uvicorn.error", "daphne", "django.channels", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # A line for each address that does not exist would be anybody's to fill the log with.
    logging.getLogger("django.request").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def brief(record: logging.LogRecord) -> bool:
    """Say in one short line what Django finds suspicious about a request; where in its code it did is nobody's concern."""
    if record.name.startswith("django.security"):
        record.msg, record.args = record.getMessage()[:200], ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact and bound every text, at whatever depth of one."""
    return {str(key): _clean(str(key), value) for key, value in event.items()}


def render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Write one line; what JSON cannot say is said as text."""
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _clean(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key in ("level", "timestamp", "logger"):
        return str(value)
    from audit.redaction.sanitizer import current

    return current().text(value if isinstance(value, str) else repr(value), _MOST)
