"""Decode responses in processes that many tasks share (triggerer, API server): only what the models declare is built.

A page that a run visits can put millions of small values into the output of the run. To build them would block the
process for seconds. To skip 8 MB of them takes milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Raw
from pydantic import AliasChoices, AliasPath

from airflow_provider_browseract.api.models import Model, Page

SHOWN_ITEMS = 100
"""First items, and last items, of a list in a task that are built."""

MAX_ITEMS = 500
"""Items of the API's largest page."""

MAX_INPUT = 64 * 1024
"""Bytes of an input whose names are built."""

MAX_NESTED = 256 * 1024
"""Bytes of an object or a list in a field, such as a schema, that is built."""

NEVER_BUILT = ("output", "output_files")

ENVELOPE = ("code", "msg", "traceId", "ts", "time")
"""What a response can have around its data."""

_HALVES = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F]..)", re.DOTALL)
"""Escapes of half a character without the other half."""

MAX_HALVES = 1000
"""Halves of characters that are replaced. A response with more of them is not read."""

_names = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode


def decode_declared(text: bytes | Raw, model: type[Model]) -> dict[str, Any]:
    """Return a JSON object with what a model declares.

    It is without the output of a run. The input of a run has its names without the values, and is null if it is large.
    Of the lists of a task, only the first and the last items are built; ``steps_left_out`` counts the other steps.

    :raises msgspec.MsgspecError: it is no object, or has what msgspec refuses, such as NaN.
    :raises ValueError: it is a page with more items than any page of the API.
    :raises RecursionError: it is nested too deeply.
    """
    items_of, decode = _declared(model)
    try:
        found = decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half an emoji, as at the end of a text that was cut, is JSON that msgspec refuses.
        found = decode(_HALVES.sub(rb"\\ufffd", bytes(text), count=MAX_HALVES))
    built: dict[str, Any] = {}
    for name, item in items_of.items():
        raw = getattr(found, name)
        size = len(memoryview(raw))
        if size == 0:
            continue
        try:
            if name == "data":
                built[name] = decode_declared(raw, model)
            elif name == "input":
                built[name] = dict.fromkeys(_names(raw)) if size <= MAX_INPUT else None
            elif item is None:
                is_nested = bytes(memoryview(raw)[:1]) in (b"{", b"[")
                built[name] = None if is_nested and size > MAX_NESTED else msgspec.json.decode(raw)
            else:
                items = _items(raw)
                if issubclass(model, Page):
                    if len(items) > MAX_ITEMS:
                        raise ValueError
                elif len(items) > 2 * SHOWN_ITEMS:
                    built[f"{name}_left_out"] = len(items) - 2 * SHOWN_ITEMS
                    items = items[:SHOWN_ITEMS] + items[-SHOWN_ITEMS:]
                built[name] = [_object(each, item) for each in items]
        except msgspec.ValidationError:
            # The JSON is of another type, which the model reads as missing, or refuses.
            built[name] = None
    return built


def _object(raw: Raw, model: type[Model]) -> dict[str, Any] | None:
    try:
        return decode_declared(raw, model)
    except msgspec.ValidationError:
        return None


@cache
def _declared(model: type[Model]) -> tuple[dict[str, type[Model] | None], Callable[[bytes | Raw], Any]]:
    """Return the names that a model reads, with the model of the items if it is a list of objects, and a decoder."""
    names: dict[str, type[Model] | None] = dict.fromkeys((*ENVELOPE, "data"))
    for field, info in model.model_fields.items():
        first = next(iter(get_args(info.annotation)), None)
        is_list = get_origin(info.annotation) is tuple and isinstance(first, type) and issubclass(first, Model)
        choices = info.validation_alias
        for alias in choices.choices if isinstance(choices, AliasChoices) else [choices or field]:
            name = str(alias.path[0] if isinstance(alias, AliasPath) else alias)
            if name not in NEVER_BUILT:
                names[name] = first if is_list else None
    struct = msgspec.defstruct(model.__name__, [(name, Raw, Raw()) for name in names])
    return names, msgspec.json.Decoder(struct).decode
