"""The Python door for coroutines: what :mod:`bytestag.api` has, each awaited.

The work runs in a few threads, so that the loop goes on meanwhile::

    from bytestag import aio

    path = await aio.load_file("sha1://…/results.csv")
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from bytestag import api

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 4
_pool: ThreadPoolExecutor


def _make_pool() -> None:
    global _pool
    _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="bytestag-aio")


_make_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_pool)  # the threads of the old one are not there


def _awaited(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_pool, lambda: function(*args, **kwargs))

    return call


store_file = _awaited(api.store_file)
store_bytes = _awaited(api.store_bytes)
store_text = _awaited(api.store_text)
store_object = _awaited(api.store_object)
store_npy = _awaited(api.store_npy)
store_dir = _awaited(api.store_dir)
link_file = _awaited(api.link_file)
load_file = _awaited(api.load_file)
load_bytes = _awaited(api.load_bytes)
load_text = _awaited(api.load_text)
load_object = _awaited(api.load_object)
load_npy = _awaited(api.load_npy)
load_dir = _awaited(api.load_dir)
open_file = _awaited(api.open_file)
read_dir = _awaited(api.read_dir)
get_file_info = _awaited(api.get_file_info)
find = _awaited(api.find)
