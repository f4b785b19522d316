"""Progress of what a library does: a bar, a callable, or nothing (shell)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int, int], object]
"""Called with the bytes done, those there are, and how many nodes they came from."""
Progress = bool | Callable[[int, int], object]
"""What a person may ask for: a bar, nothing, or to be called with the bytes done and all."""


def no_report(_done: int, _total: int, _sources: int) -> None:
    """Be the report of somebody who does not care."""


@contextmanager
def reporting(progress: Progress, total: int) -> Iterator[Report]:
    """Give what tells as a person asked for it."""
    if progress is False:
        yield no_report
    elif progress is True:
        with _bar(total) as report:
            yield report
    else:
        yield lambda done, all_, _sources: progress(done, all_)


@contextmanager
def _bar(total: int) -> Iterator[Report]:
    """A bar of tqdm, in a notebook too; without tqdm a line on standard error at each tenth."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield _tenths()
        return
    with tqdm(total=total or None, unit="B", unit_scale=True, leave=False) as bar:

        def update(done: int, all_: int, sources: int) -> None:
            bar.total = all_ or None
            if sources:
                bar.set_postfix(sources=sources, refresh=False)
            bar.update(done - bar.n)

        yield update


def _tenths() -> Report:
    said = -1

    def show(done: int, all_: int, _sources: int) -> None:
        nonlocal said
        tenth = 10 * done // all_ if all_ else 0
        if tenth > said:
            said = tenth
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{10 * tenth} %\n")

    return show
