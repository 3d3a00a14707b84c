"""Acts upon what upstreams define: check, refresh, approve; each tells the audit log what it changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from audit.redaction.sanitizer import current as current_sanitizer
from audit.services.acts import record_act
from core.access.actors import Actor
from proxy.mcp.definitions import diff, status_of, visible
from proxy.models import CatalogueItem, Upstream, UpstreamStatus
from proxy.services.errors import ServiceError, locked
from proxy.upstreams.catalogue import CheckReport, FoundDefinitions, Step, clean, examine, last_words, lines
from proxy.upstreams.client import TIMEOUT
from proxy.upstreams.probe import expired
from proxy.upstreams.registry import build_transport, host_folder
from proxy.upstreams.specs import UpstreamSpec, spec_of
from proxy.upstreams.transports.base import Transport, TransportLimits, UpstreamError, UpstreamRequest
from proxy.upstreams.transports.hosted import pool

log = logging.getLogger("sentinel.proxy")

#: one refresher at a time in the whole installation
_LOCK = 0x5E47_1E10
_SHOWN = 50
STDERR_LINE = 2000  # bytes of one line
#: a whole check may take this long; the next upstream waits for it
CHECK_SECONDS = 60.0
#: and so long where nobody else waits: `npx -y` and `uvx` fetch a server before they start it
FIRST_START_SECONDS = 300.0
TELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What a refresh changed, by kind of change; names as `tool name`."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.new, self.changed, self.quarantined, self.gone, self.back))

    def as_json(self) -> dict[str, list[str]]:
        """Give the form for events, bounded."""
        return {
            name: [visible(item) for item in getattr(self, name)[:_SHOWN]]
            for name in ("new", "changed", "quarantined", "gone", "back")
            if getattr(self, name)
        }


def spec_for(upstream: Upstream) -> UpstreamSpec:
    """Make the spec of a stored upstream, as the workers would."""
    row: dict[str, Any] = {item.attname: getattr(upstream, item.attname) for item in Upstream._meta.concrete_fields}
    status = UpstreamStatus.objects.filter(upstream=upstream).first()
    row |= {
        "era": status.era if status else "",
        "era_checked_at": status.era_checked_at.timestamp() if status and status.era_checked_at else None,
        "catalogued": bool(status and status.catalogue_at),
    }
    return spec_of(row, settings.SENTINEL.data_key)


def check_upstream(
    *, slug: str, actor: Actor | None = None, seconds: float = 0.0, told: Callable[[str], None] | None = None
) -> tuple[CheckReport, Changes]:
    """Connect, discover or initialize, list; keep what was seen. Works for disabled upstreams too; raises ServiceError.

    It ends after `seconds`. While a command is waited for, `told` gets a line about it every few seconds.
    """
    upstream = Upstream.objects.filter(slug=slug).first()
    if upstream is None:
        raise ServiceError(f"There is no upstream {slug}.", "slug")
    report = asyncio.run(_examine(spec_for(upstream), seconds or CHECK_SECONDS, told))
    return report, keep(slug, report, actor=actor)


async def _examine(spec: UpstreamSpec, seconds: float, told: Callable[[str], None] | None) -> CheckReport:
    transport = build_transport(spec)
    telling = asyncio.create_task(_tell(transport, told)) if told is not None and spec.transport == "stdio" else None
    try:
        async with asyncio.timeout(seconds):
            return await examine(transport, kind=spec.transport, patience=max(seconds - 2 * TIMEOUT, TIMEOUT))
    except TimeoutError:
        late = f"it did not end within {seconds:.0f} s"
        return CheckReport([Step("check", False, seconds * 1000, late, lines(last_words(transport)))])
    finally:
        if telling is not None:
            telling.cancel()
        await transport.close()


async def _tell(transport: Transport, told: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        await asyncio.sleep(TELL_SECONDS)
        words = last_words(transport).splitlines()
        it_says = f"; it says: {visible(clean(words[-1]))}" if words else ""
        told(f"waiting for the command, {loop.time() - begun:.0f} s{it_says}")


def keep(slug: str, report: CheckReport, *, actor: Actor | None = None) -> Changes:
    """Store what a check saw: its steps, the era, the catalogue."""
    now = timezone.now()
    with transaction.atomic():
        upstream = locked(slug)
        status, _ = UpstreamStatus.objects.get_or_create(upstream=upstream)
        status.ok, status.checked_at, status.steps = report.ok, now, [step.as_json() for step in report.steps]
        fields = ["ok", "checked_at", "steps"]
        if actor is not None and report.ok and status.calls_ok is False:
            status.calls_ok, status.calls_at = None, now  # whoever asked has mended something: calls will tell
            fields += ["calls_ok", "calls_at"]
        verdict = report.verdict
        if verdict.era:
            fields += ["era_checked_at", "versions", "server_info"]
            if status.era != verdict.era:
                fields.append("era")
            status.era, status.era_checked_at = verdict.era, now
            status.versions = list(verdict.versions)
            told = list(verdict.server_info.items())[:10]
            status.server_info = {clean(str(k))[:60]: clean(str(v))[:300] for k, v in told}
        elif (
            status.era and status.era_checked_at and expired(status.era, (now - status.era_checked_at).total_seconds())
        ):
            status.era = ""
            fields.append("era")
        changes = Changes()
        if report.found is not None:
            changes = _store(upstream, report.found, report.kinds, first=status.catalogue_at is None, now=now)
            status.catalogue_at = now
            fields.append("catalogue_at")
        status.save(update_fields=fields)
        if changes:
            record_act(
                method="admin.catalogue.changed", actor=actor or Actor.system(), target=slug, details=changes.as_json()
            )
    if changes.changed or changes.quarantined:
        log.warning("definitions of an upstream have changed", extra={"upstream": slug, **changes.as_json()})
    return changes


def refresh_due(*, older_than: float = 300.0) -> list[str]:
    """Read the catalogues that are older than this again; for a timer in one process of the installation."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return []
    try:
        limit = timezone.now() - timedelta(seconds=older_than)
        # an upstream that nobody ever checked is left alone, unless its definitions need approval before they can be used
        wanted = Q(status__catalogue_at__isnull=False) | Q(catalogue_policy="quarantine")
        due = Upstream.objects.filter(wanted, enabled=True).exclude(status__checked_at__gt=limit)
        done = []
        for slug in due.values_list("slug", flat=True):
            try:
                check_upstream(slug=slug)
                done.append(slug)
            except ServiceError:
                continue  # removed meanwhile
        return done
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def approve(
    *,
    actor: Actor,
    slug: str,
    items: Sequence[tuple[str, str]] | None = None,
    hashes: dict[tuple[str, str], str] | None = None,
) -> list[CatalogueItem]:
    """Approve definitions as they now are: those named as (kind, name), or all that wait.

    `hashes` are the ones the approver has read: a definition that has changed since is refused.
    """
    with transaction.atomic():
        upstream = locked(slug)
        query = CatalogueItem.objects.select_for_update().filter(upstream=upstream).exclude(status="pinned")
        waiting = {(item.kind, item.name): item for item in query}
        chosen = list(waiting.values())
        if items is not None:
            known = set(CatalogueItem.objects.filter(upstream=upstream).values_list("kind", "name"))
            missing = [pair for pair in items if tuple(pair) not in known]
            if missing:
                raise ServiceError(f"{slug} has no {missing[0][0]} {visible(missing[0][1])}.", "name")
            chosen = [waiting[pair] for pair in map(tuple, items) if pair in waiting]
        for item in chosen:
            wanted = (hashes or {}).get((item.kind, item.name))
            if wanted is not None and wanted != item.hash:
                raise ServiceError(f"{item.kind} {visible(item.name)} has changed since you looked at it.", "hash")
            before = {"hash": item.pinned_hash} if item.pinned_hash else None
            change = diff(item.pinned_definition, item.definition)[:200]
            item.pinned_definition, item.pinned_hash, item.status = item.definition, item.hash, "pinned"
            item.approved_at, item.approved_by, item.held = timezone.now(), actor.name[:200], False
            item.save()
            record_act(
                method="admin.catalogue.approved",
                actor=actor,
                target=f"{slug}/{item.kind}/{visible(item.name)}",
                before=before,
                after={"hash": item.hash, "flags": item.flags},
                details={"diff": change},
            )
    return chosen


def stderr(slug: str) -> list[str]:
    """Give what a stdio upstream last wrote to its standard error, from the process that runs it; [] when none does.

    A command may write anything there, so it is redacted and escaped like what an event keeps.
    """

    async def read() -> list[str]:
        transport = pool(host_folder(settings.SENTINEL), TransportLimits(connect=0.2, first_byte=2.0))
        try:
            response = await transport.send(UpstreamRequest(b"GET"), b"/stderr/" + slug.encode())
            lines: list[str] = orjson.loads(await response.body(1 << 20))
            return [current_sanitizer().text(line, STDERR_LINE) for line in lines]
        except UpstreamError:
            return []
        finally:
            await transport.close()

    return asyncio.run(read())


def quarantine(*, actor: Actor, slug: str, item: tuple[str, str], reason: str = "") -> CatalogueItem:
    """Withdraw a definition: hidden and refused until somebody approves it, whatever the upstream's policy says."""
    with transaction.atomic():
        upstream = locked(slug)
        kind, name = item
        found = CatalogueItem.objects.select_for_update().filter(upstream=upstream, kind=kind, name=name).first()
        if found is None:
            raise ServiceError(f"{slug} has no {kind} {visible(name)}.", "name")
        if found.status == "quarantined" and found.held:
            return found
        before = {"status": found.status, "hash": found.pinned_hash}
        found.status, found.held, found.pinned_hash, found.pinned_definition = "quarantined", True, "", ""
        found.approved_at, found.approved_by = None, ""
        found.save()
        record_act(
            method="admin.catalogue.quarantined",
            actor=actor,
            target=f"{slug}/{kind}/{visible(name)}",
            before=before,
            after={"status": "quarantined", "hash": found.hash},
            details={"reason": reason[:500]} if reason else None,
        )
    return found


def forget_approvals(upstream: Upstream) -> None:
    """Take back every approval, since they were given to another server; what this one lists is looked at anew."""
    upstream.catalogue.update(
        status="quarantined", pinned_hash="", pinned_definition="", approved_at=None, approved_by="", present=False
    )


def apply_policy(slug: str) -> None:
    """Judge the catalogue again under the upstream's present policy (after that setting was changed)."""
    with transaction.atomic():
        upstream = locked(slug)
        for item in CatalogueItem.objects.select_for_update().filter(upstream=upstream).exclude(status="pinned"):
            status = "quarantined" if item.held else status_of(item.hash, item.pinned_hash, upstream.catalogue_policy)
            if status != item.status:
                item.status = status
                item.save(update_fields=["status"])


def _store(
    upstream: Upstream, found: list[FoundDefinitions], kinds: Sequence[str], *, first: bool, now: datetime
) -> Changes:
    changes = Changes()
    known = {(item.kind, item.name): item for item in upstream.catalogue.select_for_update()}
    added: list[CatalogueItem] = []
    altered: list[CatalogueItem] = []
    seen: set[tuple[str, str]] = set()
    policy = upstream.catalogue_policy
    for one in found:
        seen.add((one.kind, one.name))
        title = f"{one.kind} {one.name}"
        item = known.get((one.kind, one.name))
        if item is None:
            status = status_of(one.hash, "", policy, first_read=first)
            pinned = status == "pinned"
            added.append(
                CatalogueItem(
                    upstream=upstream,
                    kind=one.kind,
                    name=one.name,
                    definition=one.definition,
                    hash=one.hash,
                    pinned_definition=one.definition if pinned else "",
                    pinned_hash=one.hash if pinned else "",
                    status=status,
                    flags=list(one.flags),
                    approved_by="on first sight" if pinned else "",
                    approved_at=now if pinned else None,
                )
            )
            (changes.quarantined if status == "quarantined" else changes.new).append(title)
            continue
        if item.hash == one.hash and item.present:
            continue
        if item.hash != one.hash:
            item.definition, item.hash, item.flags, item.changed_at = one.definition, one.hash, list(one.flags), now
            item.status = "quarantined" if item.held else status_of(one.hash, item.pinned_hash, policy)
            into = {"pinned": changes.back, "quarantined": changes.quarantined}.get(item.status, changes.changed)
            into.append(title)
        else:
            changes.back.append(title)
        item.present = True
        altered.append(item)
    for key, item in known.items():
        if key not in seen and item.present and (item.kind in kinds):
            item.present = False
            altered.append(item)
            changes.gone.append(f"{item.kind} {item.name}")
    if added:
        CatalogueItem.objects.bulk_create(added)
    if altered:
        CatalogueItem.objects.bulk_update(
            altered, ["definition", "hash", "flags", "changed_at", "status", "present"], batch_size=500
        )
    return changes
