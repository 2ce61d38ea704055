"""A run as one value: check its arguments, send it, recognize it in a later try, and log it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from airflow_provider_browseract.api.arguments import optional, read_id, read_path_id
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import ApiVersion, CreatedTask
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.addresses import check_callback_url
from airflow_provider_browseract.runs.hints import not_a_dict
from airflow_provider_browseract.runs.proof import keyed_digest
from airflow_provider_browseract.runs.stored import Text, json_text


@dataclass(frozen=True)
class Source:
    """The workflow, bot or template to run."""

    kind: SourceKind
    id: Text

    def __str__(self) -> str:
        return f"{self.kind.value.replace('_', ' ')} {self.id}"

    @property
    def api_version(self) -> ApiVersion:
        """The version of the API that runs it."""
        return SOURCES[self.kind].api_version

    @property
    def is_template(self) -> bool:
        """Whether it is an official template. Lists of tasks do not name the template of a run."""
        return self.kind in (SourceKind.TEMPLATE, SourceKind.BOT_TEMPLATE)


NO_OPTIONS = ("source", "inputs", "callback_token", "source_name")
"""Fields of a request that are no options of the call that starts the run."""

NOT_COMPARED = ("callback_url", "status_change_callback_url", "callback_token", "source_name")
"""Fields of a request in which two tries may differ although they want the same run."""


@dataclass(frozen=True)
class RunRequest:
    """A requested run.

    Inputs, addresses and token are kept out of ``repr``, because they can be confidential.

    :param inputs: the inputs by name as they are sent: texts to a workflow, JSON values to a bot.
    :param save_browser_data: save cookies and logins of the run in a browser profile (workflows only).
    :param profile_id: browser profile to start with (workflows only).
    :param region: code of the proxy region (templates only).
    :param callback_url: address that BrowserAct calls once, when the run ends.
    :param status_change_callback_url: address that BrowserAct calls at each change of status, including the end.
    :param callback_token: the token in our callback address, if ``callback_url`` is ours.
    :param source_name: the name of the workflow, bot or template, if it is known. It is only for display.
    """

    source: Source
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    save_browser_data: bool | None = None
    profile_id: str | None = None
    region: str | None = None
    callback_url: str | None = field(default=None, repr=False)
    status_change_callback_url: str | None = field(default=None, repr=False)
    callback_token: str | None = field(default=None, repr=False)
    source_name: str | None = field(default=None, compare=False)

    @cached_property
    def call(self) -> Call[CreatedTask]:
        """The call that starts the run."""
        options = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in NO_OPTIONS}
        # Each kind of source takes only its own options.
        given = {name: value for name, value in options.items() if value is not None}
        return SOURCES[self.source.kind].start(self.source.id, self.inputs, **given)

    def fingerprint(self, api_key: str) -> str:
        """Return a digest of everything but :data:`NOT_COMPARED`, to distinguish runs without storing their data.

        Everyone who may see a task instance can read the stored digest. It depends on the API key, so that nobody
        without that key can test a guess of an input. The order of the inputs and of the keys in an input is ignored,
        because both may change between tries.
        """
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in NOT_COMPARED}
        inputs = {name: _with_sorted_keys(text) for name, text in self.inputs.items()}
        parts |= {"source": str(self.source), "inputs": inputs, "save_browser_data": bool(self.save_browser_data)}
        return keyed_digest(api_key, [*parts.values()])

    @property
    def callback_token_sha256(self) -> str | None:
        """Digest of the token, which may be stored; None if ``callback_url`` is not ours."""
        return None if self.callback_token is None else digest(self.callback_token)

    def shown(self, is_secret: Callable[[str], bool]) -> dict[str, Any]:
        """Return the body of the start for a log, without secrets.

        :param is_secret: returns whether a value with this name must be hidden.
        :returns: the body without callback addresses, and without values with secret names at any depth.
        """
        body: dict[str, Any] = without_secrets(self.call.body or {}, is_secret, set())
        return {**body, **{name: "***" for name in body if name.endswith("callback_url")}}


def digest(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal, which may be stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def _with_sorted_keys(text: Any) -> Any:
    """Return the text of an input with the keys of JSON objects sorted, and any other text or value unchanged."""
    try:
        value = json.loads(text) if isinstance(text, str) and text[:1] in ("{", "[") else None
        return text if value is None else json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return text


def without_secrets(value: Any, is_secret: Callable[[str], bool], found: set[str]) -> Any:
    """Return inputs with ``***`` for each value with a secret name, at any depth, also in lists of pairs and JSON text.

    :param is_secret: returns whether a value with this name must be hidden.
    :param found: the texts of the replaced values are added to it.
    """
    if isinstance(value, Mapping):
        of = next((value[each] for each in ("name", "key") if value.keys() == {each, "value"}), None)
        shown = {}
        for name, member in value.items():
            hidden = is_secret(name) or (name == "value" and isinstance(of, str) and is_secret(of))
            if hidden:
                found.update(_texts_of(member))
            shown[name] = "***" if hidden else without_secrets(member, is_secret, found)
        return shown
    if isinstance(value, list | tuple):
        return [without_secrets(member, is_secret, found) for member in value]
    inner = _container_in(value)
    if inner is None:
        return value
    try:
        shown = without_secrets(inner, is_secret, found)
    except RecursionError:
        found.add(value)
        return "***"
    return value if shown == inner else json.dumps(shown, ensure_ascii=False)


def _texts_of(value: Any) -> Iterator[str]:
    """Yield the texts under which a secret value can appear, also as a part of JSON text."""
    if isinstance(value, Mapping | list | tuple):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_of(member)
    elif isinstance(value, str):
        # Replacing these words everywhere would make a log unreadable.
        if value.lower() not in ("true", "false", "null", "none"):
            # A goal has it in one line.
            line = one_line(value) or value
            yield from {value, line, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            yield from _texts_of(_container_in(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _container_in(value: Any) -> Any:
    """Return the object or array in a JSON text; None for anything else."""
    try:
        return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


def secret_parts(url: Any) -> set[str]:
    """Return the parts of a callback address that can be secret: its login, and everything after the host."""
    found = re.fullmatch(r"https?://([^/?#]*@)?[^/?#]*(.*)", url, re.DOTALL) if isinstance(url, str) else None
    return {part for part in found.groups() if part} if found else set()


def with_names_as_keys(value: Any) -> Any:
    """Return inputs in list form as a dict, and anything else, also a list that is no list of inputs, unchanged."""
    if not isinstance(value, list | tuple):
        return value
    pairs = [pair for pair in value if isinstance(pair, Mapping) and pair.keys() == {"name", "value"}]
    named = {pair["name"]: pair["value"] for pair in pairs if isinstance(pair["name"], str)}
    return named if len(named) == len(value) else value


ID_ARGUMENTS = {
    SourceKind.WORKFLOW: "workflow_id",
    SourceKind.TEMPLATE: "workflow_template_id",
    SourceKind.BOT: "bot_id",
    SourceKind.BOT_TEMPLATE: "template_id",
}
"""The argument with the id of what is run."""


def read_request(kind: SourceKind, source_id: Any, inputs: Any, *, api_base_url: str, **options: Any) -> RunRequest:
    """Check the arguments of a start, and return them as a request.

    :param inputs: see :func:`read_input_parameters`, or :func:`~airflow_provider_browseract.runs.bot_input.read_input`.
    :param api_base_url: see :func:`~airflow_provider_browseract.runs.addresses.check_callback_url`.
    :param options: the other fields of the request.
    :raises InputError: an argument cannot be used.
    """
    read: Callable[[Any], dict[str, Any]] = read_input_parameters
    if SOURCES[kind].api_version is ApiVersion.V3:
        # Only bots have schemas.
        from airflow_provider_browseract.runs.bot_input import read_input as read
    for name in ("callback_url", "status_change_callback_url"):
        options[name] = check_callback_url(name, options.get(name), api_base_url=api_base_url)
    for name in ("profile_id", "region"):
        options[name] = optional(read_id, name, options.get(name))
    return RunRequest(Source(kind, read_path_id(ID_ARGUMENTS[kind], source_id)), read(inputs), **options)


def read_input_parameters(value: Any) -> dict[str, str]:
    """Convert ``input_parameters`` to the texts that the API takes.

    :param value: a mapping of names to values, or a sequence of ``{"name": ..., "value": ...}``. Strings stay as they
        are, and any other JSON value is converted to JSON text. ``None`` means no inputs.
    :returns: the texts by name, in the given order.
    :raises InputError: the value is something else, a name is empty or given twice, or a value is not JSON.
    """
    inputs: dict[str, str] = {}
    for name, given in _pairs_of(value):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"input_parameters has the name {name!r}. Use strings that are not empty.")
        if name in inputs:
            raise InputError(f"input_parameters has the name {name!r} twice. Remove one of them.")
        if given is None:
            raise InputError(f"input_parameters[{name!r}] is None. Set a value, or remove the name.")
        inputs[name] = given if isinstance(given, str) else _json_text(name, given)
    return inputs


def _pairs_of(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return list(value.items())
    is_item = isinstance(value, tuple) and not all(isinstance(each, Mapping) for each in value)
    if is_item or not isinstance(value, Sequence) or isinstance(value, str | bytes):
        forms = 'a dict of names and values or a list of {"name": ..., "value": ...}'
        raise not_a_dict("input_parameters", value, forms)
    return [_read_pair(position, pair) for position, pair in enumerate(value)]


def _read_pair(position: int, pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, Mapping) or set(pair) != {"name", "value"}:
        keys = f"has the keys {[*pair]}" if isinstance(pair, Mapping) else f"is of type {type(pair).__name__}"
        raise InputError(
            f"input_parameters[{position}] {keys}. Pass a dict of names and values, or a list in which each element "
            "is a dict with exactly the keys name and value."
        )
    return pair["name"], pair["value"]


def _json_text(name: str, value: Any) -> str:
    try:
        return json_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"input_parameters[{name!r}] cannot be written as JSON ({error}). Pass a string or a JSON value, for "
            "example a time as .isoformat()."
        ) from None
