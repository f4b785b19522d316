"""Key files of nodes: read, checked, made (shell)."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from bytestag import basedir
from bytestag.crypto.identity import Identity, id_hash, trailing_zero_bits
from bytestag.errors import BytestagError, NotPermitted, StorageError, UsageError

NODE_NAME, CLIENT_NAME = "identity.key", "client.key"

Note = Callable[[str], object]


def no_note(_text: str) -> None:
    """Be the note of somebody who listens to none."""


def load_identity(path: Path, pow_bits: int, note: Note = no_note) -> Identity:
    """Read a key file, or make it.

    Raises:
        NotPermitted: others may read it.
        UsageError: it is no key file, or its node ID has too little work for this network.
        StorageError: it cannot be read or made.
    """
    secret = _read_secret(path)
    if secret is None:
        basedir.ensure(path.parent)
        if pow_bits:
            note("making a key for this network; this takes a few seconds, once")
        made = Identity.generate(os.urandom, pow_bits)
        _write_secret(path, made.to_bytes())
        secret = _read_secret(path) or b""
    try:
        identity = Identity.from_bytes(secret)
    except BytestagError as error:
        raise UsageError(f"{str(path)!r} is no key file", hint=error.hint) from error
    if not has_work(identity, pow_bits):
        raise UsageError(
            f"the key in {str(path)!r} was made for a network without proof of work",
            hint="give another --identity FILE; it is made if it does not exist",
        )
    return identity


def has_work(identity: Identity, pow_bits: int) -> bool:
    """Return whether a node ID has the work that a network asks for."""
    hash_ = id_hash(identity.signing.public, identity.static.public)
    return trailing_zero_bits(hash_) >= pow_bits


def own_identity(directory: Path, name: str, pow_bits: int, note: Note = no_note) -> Identity:
    """Return the identity of a state directory; networks with work may need a second one."""
    path = directory / name
    try:
        return load_identity(path, pow_bits, note)
    except UsageError:
        if not pow_bits or path.stat().st_size != len(Identity.generate(os.urandom).to_bytes()):
            raise
        stem, _, suffix = name.partition(".")
        return load_identity(directory / f"{stem}-{pow_bits}.{suffix}", pow_bits, note)


def _read_secret(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise NotPermitted(
                    f"others may read the key file {str(path)!r}", hint=f"chmod 600 {path}"
                )
            return file.read(4096)
    except FileNotFoundError:
        return None
    except NotPermitted:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _write_secret(path: Path, secret: bytes) -> None:
    """Write a new file as a whole; leave one that somebody else made meanwhile."""
    try:
        fd, part = tempfile.mkstemp(".part", f"{path.name}.", path.parent)  # of mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)
        finally:
            os.unlink(part)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror}") from error
