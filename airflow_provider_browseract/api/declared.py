"""Decode responses in processes that many tasks share (triggerer, API server): only what the models declare is built.

A page that a run visits can put millions of small values into the output of the run. To build them would block the
process for seconds. To skip 8 MB of them takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
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

MAX_TEXT = 4 * 1024
"""Bytes of a text for people that are built. One line of it is shown."""

MAX_NESTED = 256 * 1024
"""Bytes of all objects and lists in the fields of a response, such as schemas, that are built."""

LONGEST_CHARACTER = len(r"\ud83d\ude00")
"""Bytes of a character in JSON."""

ENVELOPE = ("code", "msg", "traceId", "ts", "time")
"""What a response can have around its data."""

TEXT, NESTED, NAMES = "text", "nested", "names"
"""How a field is built: only a value without members, any value, or only the names of the members."""

Kind = str | type[Model]
"""One of these words, or the model of the items of a list."""

_names = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode


def decode_declared(body: bytes, model: type[Model]) -> dict[str, Any]:
    """Return a JSON object with what a model declares, in an envelope or without one.

    It is without the output of a run. The input of a run has its names without the values, and is null if it is large.
    Of the lists of a task, only the first and the last items are built; ``steps_left_out`` counts the other steps.

    :raises msgspec.MsgspecError: it is no object, or has what msgspec refuses, such as NaN.
    :raises ValueError: it is a page with more items than any page of the API.
    :raises RecursionError: it is nested too deeply.
    """
    try:
        return _Decoding(halves=False).object(body, model, outermost=True)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half an emoji, as at the end of a text that was cut, is JSON that msgspec refuses. It accepts another escape
        # in its place. What is built gets the right ones back.
        return _Decoding(halves=True).object(body.replace(rb"\u", rb"\f"), model, outermost=True)


class _Decoding:
    """Build the declared parts of one response.

    :param halves: the escapes of the response were replaced, because some are halves of characters.
    """

    def __init__(self, *, halves: bool) -> None:
        self._halves = halves
        self._left = MAX_NESTED

    def object(self, text: bytes | Raw, model: type[Model], *, outermost: bool = False) -> dict[str, Any]:
        """Build an object. The outermost one may be an envelope with the data in it."""
        kinds, decode = _declared(model, outermost)
        found = decode(text)
        given = {name: raw for name in kinds if len(memoryview(raw := getattr(found, name)))}
        built: dict[str, Any] = dict.fromkeys(given)
        for name, raw in given.items():
            # JSON of another type stays null, which the model reads as missing, or refuses.
            with suppress(msgspec.ValidationError):
                kind = kinds[name]
                if not isinstance(kind, str):
                    built[name], left_out = self._list(_items(raw), kind, is_page=issubclass(model, Page))
                    built |= {f"{name}_left_out": left_out} if left_out else {}
                elif outermost and name == "data":
                    built[name] = self.object(raw, model)
                else:
                    built[name] = self._value(bytes(memoryview(raw)), kind)
        return built

    def _list(self, items: list[Raw], model: type[Model], *, is_page: bool) -> tuple[list[Any], int]:
        """Build the items of a list, and return how many were left out."""
        if is_page and len(items) > MAX_ITEMS:
            raise ValueError
        left_out = 0 if is_page else max(0, len(items) - 2 * SHOWN_ITEMS)
        shown = items[:SHOWN_ITEMS] + items[-SHOWN_ITEMS:] if left_out else items
        built: list[Any] = [None] * len(shown)
        for at, item in enumerate(shown):
            with suppress(msgspec.ValidationError):
                built[at] = self.object(item, model)
        return built, left_out

    def _value(self, text: bytes, kind: str) -> Any:
        if kind == NAMES:
            return dict.fromkeys(_names(text)) if len(text) <= MAX_INPUT else None
        if text[:1] in (b"{", b"["):
            self._left -= len(text) if kind == NESTED else 0
            return self._read(text) if kind == NESTED and self._left >= 0 else None
        if kind == NESTED or len(text) <= MAX_TEXT:
            return self._read(text)
        # The end may be within a character.
        for end in range(MAX_TEXT, MAX_TEXT - LONGEST_CHARACTER, -1):
            with suppress(msgspec.DecodeError):
                if (found := self._read(text[:end] + b'"')) is not None:
                    return found
        return None

    def _read(self, text: bytes) -> Any:
        if not self._halves:
            return msgspec.json.decode(text)
        # A text with a form feed of its own is missing.
        with suppress(ValueError):
            found = json.dumps(json.loads(text.replace(rb"\f", rb"\u")), ensure_ascii=False)
            return json.loads(found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        return None


@cache
def _declared(model: type[Model], outermost: bool) -> tuple[dict[str, Kind], Callable[[bytes | Raw], Any]]:
    """Return the names that a model reads, each with its kind, and a decoder."""
    # Any code, even an object, is one of an error.
    kinds: dict[str, Kind] = {**dict.fromkeys((*ENVELOPE, "data"), TEXT), "code": NESTED} if outermost else {}
    for field, info in model.model_fields.items():
        choices = info.validation_alias
        for alias in choices.choices if isinstance(choices, AliasChoices) else [choices or field]:
            name = str(alias.path[0] if isinstance(alias, AliasPath) else alias)
            if name not in model.never_shared:
                kinds[name] = NESTED if isinstance(alias, AliasPath) else _kind_of(field, info.annotation)
    struct = msgspec.defstruct(model.__name__, [(name, Raw, Raw()) for name in kinds])
    return kinds, msgspec.json.Decoder(struct).decode


def _kind_of(field: str, annotation: Any) -> Kind:
    parts = [annotation, *get_args(annotation)]
    models = [each for each in parts if isinstance(each, type) and issubclass(each, Model)]
    if models and get_origin(annotation) is tuple:
        return models[0]
    # Some examples show the inputs of a workflow as a list.
    is_nested = models or annotation is Any or field == "input_parameters"
    return NAMES if field == "input" else NESTED if is_nested else TEXT
