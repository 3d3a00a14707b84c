"""Builds this process's gateway out of the packages, and takes it down again."""

from __future__ import annotations

import asyncio
import os
import sys

from django.conf import settings

from audit.journal import logger as audit_logger
from audit.redaction import loading, warm_up
from audit.redaction.sanitizer import current as current_sanitizer
from policies.limiter.limiter import build_limiter
from policies.snapshot import snapshot
from policies.snapshot.snapshot import SnapshotHolder
from proxy import gateway as proxy_gateway
from proxy.gateway import Gateway
from proxy.legacy.mailboxes import Mailboxes
from proxy.upstreams import registry
from proxy.watch import Watch

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
        extra={"upstreams": registry.load, "redaction": loading.load},
        fingerprint=current_sanitizer().fingerprint,
    )
    snapshot.install(holder)
    sys.setswitchinterval(THREAD_TURN)
    gateway = Gateway(
        config=config,
        holder=holder,
        logger=logger,
        limiter=build_limiter(config),
        registry=registry.UpstreamRegistry(holder, ledger=registry.ledger_of(config)),
        mailboxes=Mailboxes(registry.host_folder(config), os.environ.get("SENTINEL_WORKER", "0")),
        # Only `serve` writes no access log of its own; any other server would print a key in the query.
        query_keys="SENTINEL_WORKER" in os.environ,
    )
    holder.start()
    await asyncio.gather(
        asyncio.to_thread(holder.ready, FIRST_SNAPSHOT), asyncio.to_thread(warm_up.warm), gateway.limiter.connect()
    )
    await gateway.start()
    Watch(gateway).start()
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
