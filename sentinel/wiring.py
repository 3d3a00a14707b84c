"""Builds this process's gateway out of the packages, and takes it down again."""

from __future__ import annotations

import asyncio
import os
import sys

from django.conf import settings

from audit import logger as audit_logger
from audit import taking_over, warming
from audit.sanitizer import current as current_sanitizer
from policies import snapshot
from policies.limiter import build_limiter
from policies.snapshot import SnapshotHolder
from proxy import gateway as proxy_gateway
from proxy import upstreams
from proxy.gateway import Gateway
from proxy.mailboxes import Mailboxes

#: how long a start waits for the first snapshot before it serves 503s until there is one, in seconds
FIRST_SNAPSHOT = 10.0
#: seconds for which a thread that reads large data may keep the event loop waiting: a call waits for it at every turn
THREAD_TURN = 0.0002


async def start_gateway() -> Gateway:
    """Open the journal, read keys and policy for the first time, and begin to serve."""
    config = settings.SENTINEL
    logger = await asyncio.to_thread(audit_logger.shared)
    holder = SnapshotHolder(
        config.dsn,
        peppers=config.key_peppers,
        extra={"upstreams": upstreams.load, "redaction": taking_over.load},
        fingerprint=current_sanitizer().fingerprint,
    )
    snapshot.install(holder)
    sys.setswitchinterval(THREAD_TURN)
    gateway = Gateway(
        config=config,
        holder=holder,
        logger=logger,
        limiter=build_limiter(config),
        registry=upstreams.UpstreamRegistry(holder, ledger=upstreams.ledger_of(config)),
        mailboxes=Mailboxes(upstreams.host_folder(config), os.environ.get("SENTINEL_WORKER", "0")),
        # Only `serve` writes no access log of its own; any other server would print a key in the query.
        query_keys="SENTINEL_WORKER" in os.environ,
    )
    holder.start()
    await asyncio.gather(
        asyncio.to_thread(holder.ready, FIRST_SNAPSHOT), asyncio.to_thread(warming.warm), gateway.limiter.connect()
    )
    await gateway.start()
    proxy_gateway.install(gateway)
    return gateway


async def stop_gateway() -> None:
    """Close streams, wait for outcomes, and close the journal cleanly."""
    gateway = proxy_gateway.current()
    await gateway.stop()
    await asyncio.to_thread(gateway.holder.stop)
    await asyncio.to_thread(gateway.logger.close)
    proxy_gateway.install(None)
    snapshot.install(None)
