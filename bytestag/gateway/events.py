"""What jobs say while they run, as the JSON objects of ``--json`` and of the control door (pure).

Jobs call an ``Emit`` with such objects; the command line prints them, whether the node is its own
or behind the control door. ``docs/reference/cli.rst`` lists every key; a test compares.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bytestag.config import HOUR
from bytestag.dht.downloading import FetchProgress
from bytestag.dht.network import Sources
from bytestag.dht.publishing import PublishOutcome, availability, is_safe_to_leave
from bytestag.errors import BytestagError
from bytestag.uri import format_address

if TYPE_CHECKING:
    from bytestag.tables.scanning import ScanResult

Event = dict[str, Any]
Emit = Callable[[Event], object]

WARNINGS_MAX = 20
EVENT_SECONDS = 0.25


class Throttle:
    """Says whether enough time has gone by since it last said so; safe in any thread."""

    def __init__(self, monotonic: Callable[[], float], seconds: float = EVENT_SECONDS) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._last = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        now = self._monotonic()
        with self._lock:
            if now - self._last < self._seconds:
                return False
            self._last = now
            return True


def hashing_event(path: str, done: int, total: int) -> Event:
    """How far hashing is."""
    return {
        "type": "progress",
        "phase": "hashing",
        "path": path,
        "bytes_done": done,
        "bytes": total,
    }


def link_event(path: str, link: str, result: ScanResult | None, values: int, size: int) -> Event:
    """The link of a share; without a ``result``, its new one after a change."""
    warnings = result.warnings[:WARNINGS_MAX] if result is not None else []
    return {
        "type": "link",
        "path": path,
        "link": link,
        "files": result.files if result is not None else None,
        "values": values,
        "bytes": size,
        "warnings": [list(warning) for warning in warnings],
        "warning_count": result.warning_count if result is not None else 0,
    }


def publishing_event(phase: str, path: str, outcome: PublishOutcome, keep_seconds: int) -> Event:
    """How many copies there are. ``phase`` is ``publishing``, or ``published`` for the last."""
    granted = outcome.granted_hours_min
    return {
        "type": "progress",
        "phase": phase,
        "path": path,
        **_counts(outcome),
        "keep_seconds": keep_seconds,
        "granted_seconds": granted * HOUR if granted is not None else None,
    }


def share_result(path: str, link: str, outcome: PublishOutcome, is_reached: bool) -> Event:
    """How a share that had a goal ended."""
    return {"type": "result", "ok": is_reached, "path": path, "link": link, **_counts(outcome)}


def _counts(outcome: PublishOutcome) -> Event:
    one = availability(outcome.copies_min)
    whole = 1.0
    for copies, rows in enumerate(outcome.copies):
        whole *= availability(copies) ** rows
    return {
        "values": outcome.rows,
        "copies_wanted": outcome.copies_wanted,
        "copies_min": outcome.copies_min,
        "copies": list(outcome.copies),
        "donors": outcome.donors,
        "bytes_pushed": outcome.bytes_pushed,
        "refused": dict(outcome.refused),
        "is_safe_to_leave": bool(outcome.rows) and is_safe_to_leave(outcome),
        "availability_min": round(one, 9),
        "availability_whole": round(whole, 9),
    }


def fetch_event(progress: FetchProgress) -> Event:
    """How far a fetch is."""
    return {"type": "progress", **_fetched(progress)}


def fetch_result(dest: str, progress: FetchProgress) -> Event:
    """What a fetch made."""
    return {"type": "result", "ok": True, "path": dest, **_fetched(progress)}


def _fetched(progress: FetchProgress) -> Event:
    return {
        "phase": progress.phase,
        "files": progress.files,
        "files_done": progress.files_done,
        "bytes": progress.bytes,
        "bytes_done": progress.bytes_done,
        "bytes_resumed": progress.bytes_resumed,
        "sources": progress.sources,
    }


def found_object(link: str, sources: Sources) -> Event:
    """Who holds and who provides what a link names, each once."""
    holders: dict[bytes, Event] = {}
    for contact, held in sources.holders:
        entry = holders.setdefault(
            contact.id,
            {
                "node_id": contact.id.hex(),
                "address": format_address(*contact.address),
                "size": 0,
            },
        )
        entry["size"] = max([entry["size"], *(row.size for row in held)])
    providers = [
        {
            "node_id": node_id.hex(),
            "addresses": [format_address(*address) for address in addresses],
        }
        for node_id, addresses in sources.providers.items()
    ]
    return {
        "link": link,
        "key": sources.key.base16,
        "holders": list(holders.values()),
        "providers": providers,
        "asked": sources.asked,
        "answered": sources.answered,
    }


def error_event(error: BytestagError) -> Event:
    """What went wrong."""
    return {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_status,
    }
