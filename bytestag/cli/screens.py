"""What people see of events: the same for a node of one's own and one behind the door (shell)."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from bytestag.cli.output import Output
from bytestag.cli.values import count, print_duration, print_size

Event = dict[str, Any]


class Meter:
    """Says bytes, rate, time left and sources in words."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began: tuple[float, int] | None = None

    def text(self, done: int, total: int, sources: int = 0) -> str:
        """Return ``5.3 MiB of 8.1 MiB, 112 MiB/s, ETA 26 s, from 3 sources``.

        The rate is that since the first call: what was there before took no time.
        """
        now = self._now()
        began, before = self._began = self._began or (now, done)
        rate = (done - before) / (now - began) if now > began else 0
        words = [f"{print_size(done)} of {print_size(total)}"]
        if rate:
            words.append(f"{print_size(rate)}/s")
            if total > done:
                words.append(f"ETA {print_duration((total - done) / rate)}")
        if sources:
            words.append(f"from {count(sources, 'source')}")
        return ", ".join(words)


class ShareScreen:
    """Shows shares."""

    def __init__(self, output: Output, copies: int) -> None:
        self._output = output
        self._copies = copies
        self._said: dict[str, str] = {}
        self.links: dict[str, str] = {}

    def show(self, event: Event) -> None:
        """Show one event."""
        is_first = event["type"] == "link" and event["path"] not in self.links
        if is_first:
            self.links[event["path"]] = event["link"]
        if self._output.is_json:
            self._output.json(event)
        elif event["type"] == "link" and not is_first:
            if event["link"] == self.links[event["path"]]:
                return  # somebody else shared it, too
            self.links[event["path"]] = event["link"]
            self._output.note(f"{event['path']} has changed; what it is now:  {event['link']}")
        elif event["type"] == "link":
            self._show_link(event)
        elif event["type"] == "result":
            self._show_published(event)
            if event["ok"]:
                least = f"at least {event['copies_min']}"
                self._output.note(
                    f"every value has {least} of {event['copies_wanted']} copies", "good"
                )
        elif event.get("phase") == "hashing":
            self._output.progress(
                f"hashing {print_size(event['bytes_done'])} of {print_size(event['bytes'])}",
                event["bytes_done"],
                event["bytes"],
            )
        elif event.get("phase") == "publishing":
            self._show_publishing(event)
        else:
            self._show_published(event)

    def _show_link(self, event: Event) -> None:
        output = self._output
        output.end_progress()
        output.answer(event["link"])
        for path, reason in event["warnings"]:
            output.warn(f"{path}: {reason}")
        hidden = event["warning_count"] - len(event["warnings"])
        if hidden > 0:
            output.warn(f"and {hidden:,} more are not shared")
        output.note(
            f"{count(event['files'], 'file')}, {count(event['values'], 'value')}, "
            f"{print_size(event['bytes'])}, shared in place, not copied"
        )
        output.note(f"on the other machine:  bytestag fetch {shlex.quote(event['link'])}")
        total = event["bytes"] * self._copies
        output.note(
            f"to push: {print_size(event['bytes'])} × {self._copies} copies = {print_size(total)}"
        )

    def _show_publishing(self, event: Event) -> None:
        wanted = event["copies_wanted"]
        done = sum(n * rows for n, rows in enumerate(event["copies"]))
        self._output.progress(
            f"publishing: {print_size(event['bytes_pushed'])} pushed, "
            f"at least {event['copies_min']} of {wanted} copies",
            done,
            event["values"] * wanted,
        )

    def _show_published(self, event: Event) -> None:
        """Say how the copies are, once for each state they are in."""
        text = self._safety(event)
        if self._said.get(event["path"]) != text:
            self._said[event["path"]] = text
            self._output.end_progress()
            self._output.note(text, "good" if event["is_safe_to_leave"] else "warning")

    def _safety(self, event: Event) -> str:
        where = f"{event['path']}: " if len(self.links) > 1 else ""
        if not event["donors"]:
            return f"{where}no donors are known yet; not safe to leave, looking for some"
        copies = count(event["copies_min"], "copy").replace("copys", "copies")
        chance = f"P(whole at one moment) = {event['availability_whole']:.6g}"
        if not event["is_safe_to_leave"]:
            refused = sum(event["refused"].values())
            reasons = f", {refused:,} refusals" if refused else ""
            return (
                f"{where}not safe to leave: the least-copied value has {copies}, "
                f"{count(event['donors'], 'donor')} known{reasons}; {chance}"
            )
        kept = event.get("granted_seconds")
        until = f"; kept for {print_duration(kept)}" if kept else ""
        return (
            f"{where}safe to leave: every value has at least {copies} on donors, "
            f"P(least-copied) = {event['availability_min']:.6g}, {chance}{until}"
        )


class FetchScreen:
    """Shows a fetch; ``on_found`` is called when it is known what is to be made."""

    def __init__(self, output: Output, on_found: Callable[[], object]) -> None:
        self._output = output
        self._on_found = on_found
        self._meter = Meter(output.now)

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.get("phase") == "found":
            self._on_found()
        if self._output.is_json:
            self._output.json(event)
        elif event["type"] == "progress":
            self._output.progress(
                f"{event['phase']}: {event['files_done']:,} of {count(event['files'], 'file')}, "
                + self._meter.text(event["bytes_done"], event["bytes"], event["sources"]),
                event["bytes_done"],
                event["bytes"],
            )
        else:
            self._output.end_progress()
            self._output.answer(event["path"])
            was_there = event["bytes_resumed"]
            there = f", {print_size(was_there)} of it was here already" if was_there else ""
            sources = f"; {count(event['sources'], 'source')}" if event["sources"] else ""
            self._output.note(
                f"{count(event['files'], 'file')}, {print_size(event['bytes'])}{there}, "
                f"every byte verified{sources}"
            )
