"""What a session has to say to whoever drives it (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from bytestag.network.units import Download, Upload


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message, undecoded."""

    message: bytes


@dataclass(frozen=True, slots=True)
class DownloadProgressed:
    """A unit was decrypted; look at ``download.is_done``."""

    download: Download


@dataclass(frozen=True, slots=True)
class DownloadFailed:
    """A unit did not authenticate; ask again with a new transfer ID."""

    download: Download


@dataclass(frozen=True, slots=True)
class UploadFinished:
    """Every segment was acknowledged."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over."""

    reason: str


Event = MessageReceived | DownloadProgressed | DownloadFailed | UploadFinished | Closed
