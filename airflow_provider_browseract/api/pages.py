"""Read a list page by page."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.exceptions import BrowserActError, ResponseTooLargeError, UnexpectedResponseError

U = TypeVar("U")

MAX_PAGES = 1000
"""Pages after which a list counts as invalid."""


class Pages(Generic[U]):
    """Go through the pages of a list up to its end.

    A list ends with its last item, or with an empty page if the responses have no ``total_count``, which the document
    does not require. A gateway may return the first page for every page. A list that contradicts itself is an error. If
    it counted as a short list, it would hide a run that uses credits.
    """

    def __init__(self, call: Call[Page[U]]) -> None:
        self.call: Call[Page[U]] | None = call
        """The call for the next page; None after the last one."""

        self._name = call.name
        self.skipped: list[str] = []
        """The items so far that could not be read, each with the reason."""

        self._seen: set[Any] = set()
        self._position = 0
        self._taken = 0
        self._total: int | None = None
        self._larger: list[int] = []
        """The limits that the pages had before they were divided, the largest first."""

    def take(self, page: Page[U]) -> list[U]:
        """Take the page that :attr:`call` returned, and set :attr:`call` to the next one.

        :returns: the items of the page, without those of earlier pages. Items move to a later page when new items are
            added to the front of the list.
        :raises UnexpectedResponseError: the numbers of the pages contradict the items.
        """
        if self.call is None:
            raise ValueError("the list has ended")
        # The number of the page comes from the request, because a response may have none.
        number, before, total = int(self.call.params["page"]), self._position, page.total_count
        new = {getattr(item, "id", item): item for item in page.items}
        new = {key: item for key, item in new.items() if key not in self._seen}
        self._position += len(page.items) + len(page.skipped)
        self._taken += 1
        self._total = total
        self._seen |= new.keys()
        self.skipped += page.skipped
        is_news = bool(new or page.skipped)
        if not is_news and (page.items if total is None else before < total):
            raise self._contradiction(number, before, total, "nothing new")
        if is_news and total is not None and self._position > total:
            raise self._contradiction(number, before, total, f"item {self._position}")
        if self._position == total and number < (page.total_pages or 0):
            raise self._contradiction(number, before, total, "a next page")
        if not is_news or self._position == total:
            self.call = None
        elif self._taken >= MAX_PAGES:
            raise self._contradiction(number, before, total, "a next page")
        else:
            self._proceed(number + 1)
        return list(new.values())

    def skip_to(self, number: int, limit: int) -> None:
        """Set :attr:`call` to a later page, given the number of items on a page."""
        self._position = (number - 1) * limit
        self._set(limit, number)

    def raise_if_unreadable(self) -> None:
        """Raise an error if no item of the list could be read, because the list would look empty.

        :raises UnexpectedResponseError: there were items, and none of them could be read.
        """
        if self.skipped and not self._seen:
            raise UnexpectedResponseError(
                f"none of the {len(self.skipped)} items in BrowserAct's responses to {self._name} can be read. The "
                f"first is {self.skipped[0]}"
            )

    @contextmanager
    def dividing(self) -> Iterator[None]:
        """Continue with a smaller page if the one that is read in this context is too large."""
        try:
            yield
        except ResponseTooLargeError as error:
            self.divide(error)

    def divide(self, error: BrowserActError) -> None:
        """Set :attr:`call` to a smaller page, because the page that it returned was too large to be read.

        A page with one item cannot be smaller, so the item is skipped. Later pages are larger again.
        """
        if self.call is None:
            raise ValueError("the list has ended")
        limit = int(self.call.params.get("limit", 1))
        if limit > 1:
            self._larger.append(limit)
            limit //= next(factor for factor in (2, 3, 5, limit) if limit % factor == 0)
            # If the position is within a page, items of that page are read again, and returned once.
            self._position -= self._position % limit
            self._set(limit, self._position // limit + 1)
            return
        self._position += 1
        self._taken += 1
        self.skipped.append(f"one without an id: {error.message}")
        if self._position == self._total:
            self.call = None
        elif self._taken >= MAX_PAGES:
            raise error
        else:
            self._proceed(self._position + 1)

    def _proceed(self, number: int) -> None:
        """Set :attr:`call` to a page; after pages were divided, to a larger one where such a page begins."""
        if self._larger and self._position % self._larger[-1] == 0:
            limit = self._larger.pop()
            self._set(limit, self._position // limit + 1)
        elif self.call is not None:
            self.call = replace(self.call, params={**self.call.params, "page": number})

    def _set(self, limit: int, number: int) -> None:
        assert self.call is not None
        self.call = replace(self.call, params={**self.call.params, "limit": limit, "page": number})

    def _contradiction(self, number: int, before: int, total: int | None, what: str) -> UnexpectedResponseError:
        return UnexpectedResponseError(
            f"BrowserAct's responses to {self._name} contradict each other: page {number} has {what}, after "
            f"{before} items (total_count {total})"
        )


@dataclass(frozen=True)
class Listing(Generic[U]):
    """The items of a list, as far as they could be read.

    :param skipped: the items that could not be read, each with the reason.
    :param truncated: the list has further items.
    """

    items: list[U]
    skipped: list[str]
    truncated: bool


def list_items(call: Call[Page[U]], max_requests: int = MAX_PAGES) -> Generator[Call[Any], Any, Listing[U]]:
    """Yield the calls that read a list page by page, and return what was read.

    :raises BrowserActError: a page cannot be read, or the pages contradict each other.
    """
    pages = Pages(call)
    items: list[U] = []
    for _ in range(max_requests):
        if pages.call is None:
            break
        with pages.dividing():
            page: Page[U] = yield pages.call
            items += pages.take(page)
    return Listing(items, pages.skipped, pages.call is not None)
