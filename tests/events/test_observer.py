"""Observer: order, failures, one shot, threads."""

import logging
import threading

import pytest

from bytestag.events.observer import Observer


def test_callbacks_are_called_in_order_with_the_arguments() -> None:
    calls: list[object] = []
    observer = Observer(lambda *args, **kwargs: calls.append((1, args, kwargs)))
    observer.register(lambda *args, **kwargs: calls.append((2, args, kwargs)))
    observer("a", b=3)
    observer()
    assert calls == [(1, ("a",), {"b": 3}), (2, ("a",), {"b": 3}), (1, (), {}), (2, (), {})]


def test_a_failing_callback_is_logged_and_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    def fail(value: int) -> None:
        raise RuntimeError("broken callback")

    observer = Observer(fail)
    observer.register(calls.append)
    with caplog.at_level(logging.ERROR):
        observer(7)
    assert calls == [7]
    assert "broken callback" in caplog.text


def test_a_callback_is_unregistered_once_and_strangers_are_ignored() -> None:
    calls: list[int] = []
    observer = Observer(calls.append)
    observer.register(calls.append)
    observer.unregister(calls.append)
    observer.unregister(print)
    observer(1)
    assert calls == [1]


def test_a_callback_may_unregister_itself_while_it_is_called() -> None:
    calls: list[int] = []
    observer = Observer()

    def once(value: int) -> None:
        observer.unregister(once)
        calls.append(value)

    observer.register(once)
    observer.register(calls.append)
    observer(1)
    observer(2)
    assert calls == [1, 1, 2]


def test_a_one_shot_observer_fires_once() -> None:
    calls: list[int] = []
    observer = Observer(calls.append, one_shot=True)
    observer(1)
    observer(2)
    assert calls == [1]


def test_a_late_callback_of_a_one_shot_observer_is_called_at_once() -> None:
    calls: list[object] = []
    observer = Observer(one_shot=True)
    observer("done", x=1)
    observer.register(lambda *args, **kwargs: calls.append((args, kwargs)))
    assert calls == [(("done",), {"x": 1})]


def test_a_one_shot_observer_called_by_many_threads_fires_once_for_each_callback() -> None:
    calls: list[int] = []
    observer = Observer(one_shot=True)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        observer.register(lambda *_: calls.append(1))
        observer()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 8
