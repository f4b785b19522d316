"""What is said of files and directories: one shape, wherever they are (shell: it hashes paths)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bytestag.hashing import sha1
from bytestag.models.directory import DirectoryManifest
from bytestag.store.content import Content
from bytestag.store.copying import hash_path
from bytestag.uri import Link

Described = dict[str, Any]


def describe_path(path: Path) -> Described:
    """Return what ``describe`` does of a file of the user's; it is not kept.

    Raises NotFound, NotPermitted, StorageError; UsageError for what is no file.
    """
    hashes, _stamp = hash_path(path, lambda: 0)  # the stamp is for who keeps it
    named = {"sha1": hashes.sha1.hex(), "blake3": hashes.blake3.hex(), "path": str(path)}
    return {"type": "file", "size": hashes.size, **named, "origin": "path"}


def describe_file(digest: bytes, size: int, blake3: bytes, content: Content | None) -> Described:
    """Return what is known of a file, and of its content if that is here."""
    found: Described = {"type": "file", "size": size, "sha1": digest.hex(), "blake3": blake3.hex()}
    if content is not None:
        found |= {"path": str(content.path), "origin": content.origin}
    return found


def describe_directory(manifest: DirectoryManifest, link: Link) -> Described:
    """Return what a manifest says of its directory."""
    sizes = [entry.size for _, entry in manifest.entries()]
    digest = sha1(manifest.to_bytes()) if link.path else link.digest
    size = sum(sizes)
    return {"type": "directory", "size": size, "sha1": digest.hex(), "files": len(sizes)}
