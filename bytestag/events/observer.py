"""Observer: a list of callbacks that is called like a function (pure but for one lock).

It may be called, and callbacks registered, from any thread. Callbacks run in the calling thread,
in the order of registration; what one of them raises is logged and does not stop the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger(__name__)

Callback = Callable[..., object]


class Observer:
    """A callback manager.

    ::

        observer = Observer()
        observer.register(print)
        observer("Observer activated!")

    With ``one_shot`` it fires once, and a callback that is registered afterwards is called at once
    with the same arguments: for "is finished" there is no moment too late to ask.
    """

    __slots__ = ("_callbacks", "_fired", "_lock", "_one_shot")

    def __init__(self, callback_fn: Callback | None = None, one_shot: bool = False) -> None:
        self._callbacks: tuple[Callback, ...] = () if callback_fn is None else (callback_fn,)
        self._fired: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._lock = threading.Lock()
        self._one_shot = one_shot

    def register(self, callback_fn: Callback) -> None:
        """Add a callback; one that is here already is called once more each time."""
        with self._lock:
            fired = self._fired
            if fired is None:
                self._callbacks = (*self._callbacks, callback_fn)
        if fired is not None:
            _call(callback_fn, *fired)

    def unregister(self, callback_fn: Callback) -> None:
        """Remove a callback once; a stranger is ignored, as it may have been removed before."""
        with self._lock:
            callbacks = list(self._callbacks)
            if callback_fn in callbacks:
                callbacks.remove(callback_fn)
            self._callbacks = tuple(callbacks)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            if self._fired is not None:
                return
            callbacks = self._callbacks
            if self._one_shot:
                self._fired = (args, kwargs)
                self._callbacks = ()
        for callback in callbacks:
            _call(callback, args, kwargs)


def _call(callback: Callback, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        callback(*args, **kwargs)
    except Exception:
        _logger.exception("! a callback failed: %r", callback)
