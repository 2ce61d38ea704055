"""Await coroutines that must complete even if the task that awaits them is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_UNDER_WAY: set[asyncio.Future[Any]] = set()
"""Running coroutines that may outlast their callers. The event loop alone would not keep them alive."""


def outlasting(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a coroutine that completes even if its callers are cancelled."""
    task = asyncio.ensure_future(coroutine)
    _UNDER_WAY.add(task)
    task.add_done_callback(_forget)
    return task


def in_empty_context(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a coroutine without context variables, so that Airflow cannot assign its requests to a trigger."""
    return contextvars.Context().run(asyncio.ensure_future, coroutine)


async def uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a request to Airflow without passing on a cancellation.

    Before Airflow 3.3, a triggerer mistakes the response to a cancelled request for the response to the next one, and
    breaks down.
    """
    return await asyncio.shield(outlasting(coroutine))


async def ask_airflow(function: Callable[..., T], *args: Any) -> T:
    """Call a function that sends a request to Airflow in a thread, without passing on a cancellation."""
    # Only triggerers need it, and DAG files import this module.
    from asgiref.sync import sync_to_async

    asking: Coroutine[Any, Any, T] = sync_to_async(function)(*args)
    return await uninterrupted(asking)


def _forget(done: asyncio.Future[Any]) -> None:
    _UNDER_WAY.discard(done)
    if not done.cancelled():
        # Otherwise asyncio would warn about an exception that was never retrieved.
        done.exception()
