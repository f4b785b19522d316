"""Progress of the Python door: a bar, a callable, or nothing (shell)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bytestag.library.library import Report, no_report

Progress = bool | Callable[[int, int], object]


@contextmanager
def reporting(progress: Progress, total: int) -> Iterator[Report]:
    """Give what is called with the bytes done and those there are."""
    if progress is False:
        yield no_report
    elif progress is True:
        with _bar(total) as report:
            yield report
    else:
        yield progress


@contextmanager
def _bar(total: int) -> Iterator[Report]:
    """A bar of tqdm, in a notebook too; without tqdm a line on standard error at each tenth."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None:
        said = -1

        def show(done: int, all_: int) -> None:
            nonlocal said
            tenth = 10 * done // all_ if all_ else 0
            if tenth > said:
                said = tenth
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"{10 * tenth} %\n")

        yield show
        return
    with tqdm(total=total or None, unit="B", unit_scale=True, leave=False) as bar:

        def update(done: int, all_: int) -> None:
            bar.total = all_ or None
            bar.update(done - bar.n)

        yield update
