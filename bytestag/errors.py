"""Every error that bytestag raises on purpose (pure).

::

    BytestagError                 code          exit  meaning
    ├── LocalError                failed           1  our caller is wrong or this machine is
    │   ├── UsageError            usage            2  an argument, link or config key is malformed
    │   ├── StateInUse            state_in_use     1  another node runs on the same state directory
    │   ├── AddressInUse          address_in_use   1  the UDP port is taken
    │   ├── StorageError          storage          1  the database or a file failed
    │   │   └── NoSpace           no_space         8  disk full or quota reached
    │   └── NotPermitted          not_permitted    9  a channel or the control door says no
    ├── RemoteError               remote           1  a peer broke the rules
    │   └── PacketError           packet           1  bytes from the network that do not decode
    ├── FormatError               format           6  a manifest or file description that lies
    ├── NotFound                  not_found        3  peers answered, none holds it
    ├── Unreachable               unreachable      4  no peer answered at all
    ├── Timeout                   timeout          5  holders known, no verified byte in time
    ├── Corrupt                   corrupt          6  only wrong bytes arrived
    └── Incomplete                incomplete       7  part of the work is done

The command line maps ``exit`` and the control door maps ``code``; nothing else does.
"""

from __future__ import annotations


class BytestagError(Exception):
    """Base of all errors: a message for people, a code for programs, a hint what to do."""

    code = "failed"
    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocalError(BytestagError):
    """The caller or this machine is at fault, not a peer."""


class UsageError(LocalError, ValueError):
    """An argument, link or configuration key is malformed."""

    code = "usage"
    exit_status = 2


class StateInUse(LocalError):
    """Another process holds the state directory."""

    code = "state_in_use"


class AddressInUse(LocalError):
    """The UDP address is taken or cannot be bound."""

    code = "address_in_use"


class StorageError(LocalError):
    """The database or the file system failed."""

    code = "storage"


class NoSpace(StorageError):
    """The disk is full or a quota is reached."""

    code = "no_space"
    exit_status = 8


class NotPermitted(LocalError, PermissionError):
    """A channel, a file mode or the control door refuses."""

    code = "not_permitted"
    exit_status = 9


class RemoteError(BytestagError):
    """A peer broke the protocol."""

    code = "remote"


class PacketError(RemoteError):
    """Bytes from the network that do not decode; the one error of every decoder."""

    code = "packet"


class FormatError(BytestagError, ValueError):
    """A manifest, file description or collection that does not hold together."""

    code = "format"
    exit_status = 6


class NotFound(BytestagError, FileNotFoundError):
    """Peers answered, but nobody holds the content."""

    code = "not_found"
    exit_status = 3


class Unreachable(BytestagError, ConnectionError):
    """Not one peer answered."""

    code = "unreachable"
    exit_status = 4


class Timeout(BytestagError, TimeoutError):
    """Holders are known, but no verified byte came within the limit."""

    code = "timeout"
    exit_status = 5


class Corrupt(BytestagError):
    """All that arrived had the wrong hash."""

    code = "corrupt"
    exit_status = 6


class Incomplete(BytestagError):
    """Part of the work is done; what is missing is in the message."""

    code = "incomplete"
    exit_status = 7
