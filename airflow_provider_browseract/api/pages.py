"""Read a list page by page."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.exceptions import ResponseTooLargeError, UnexpectedResponseError

U = TypeVar("U")

MAX_PAGES = 1000
"""Pages after which a list counts as invalid."""


class Pages(Generic[U]):
    """Go through the pages of a list up to its end: send :attr:`call` and :meth:`take` its page, until it is None.

    A list ends with its last item, or with an empty page if the responses have no ``total_count``, which the document
    does not require. A gateway may return the first page for every page. A list that contradicts itself is an error. If
    it counted as a short list, it would hide a run that uses credits.
    """

    def __init__(self, call: Call[Page[U]]) -> None:
        self.call: Call[Page[U]] | None = call
        self.skipped = 0
        """Items so far that were too large to be read."""

        self._seen: set[str] = set()
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
        call = self._current()
        # The number of the page comes from the request, because a response may have none.
        number, before, total = call.params["page"], self._position, page.total_count
        new: dict[str, U] = {item.id: item for item in page.items if item.id not in self._seen}  # type: ignore[attr-defined]
        self._seen |= new.keys()
        self._position += len(page.items)
        self._taken += 1
        self._total = total
        complete = self._position == total
        odd = None
        if not new and (page.items if total is None else before < total):
            odd = "nothing new"
        elif new and total is not None and self._position > total:
            odd = f"item {self._position}"
        elif number < (page.total_pages or 0) if complete else new and self._taken >= MAX_PAGES:
            odd = "a next page"
        if odd:
            raise UnexpectedResponseError(
                f"BrowserAct's responses to {call.name} contradict each other: page {number} has {odd}, after {before} "
                f"items (total_count {total})"
            )
        self._proceed(None if complete or not new else number + 1)
        return list(new.values())

    def skip_to(self, number: int, limit: int) -> None:
        """Set :attr:`call` to a later page, given the number of items on a page."""
        self._position = (number - 1) * limit
        self._set(limit, number)

    @contextmanager
    def dividing(self) -> Iterator[None]:
        """Continue with a smaller page if the one that is read in this context is too large.

        A page with one item cannot be smaller, so the item is skipped. Later pages are larger again.
        """
        try:
            yield
        except ResponseTooLargeError:
            limit = self._current().params["limit"]
            if limit > 1:
                self._larger.append(limit)
                limit //= next(factor for factor in (2, 3, 5, limit) if limit % factor == 0)
                # If the position is within a page, items of that page are read again, and returned once.
                self._position -= self._position % limit
                self._set(limit, self._position // limit + 1)
                return
            self._position += 1
            self._taken += 1
            self.skipped += 1
            if self._taken >= MAX_PAGES:
                raise
            self._proceed(None if self._position == self._total else self._position + 1)

    def _current(self) -> Call[Page[U]]:
        if self.call is None:
            raise ValueError("the list has ended")
        return self.call

    def _proceed(self, number: int | None) -> None:
        """Set :attr:`call` to a page; after pages were divided, to a larger one where such a page begins."""
        if number is None:
            self.call = None
        elif self._larger and self._position % self._larger[-1] == 0:
            limit = self._larger.pop()
            self._set(limit, self._position // limit + 1)
        else:
            self._set(self._current().params["limit"], number)

    def _set(self, limit: int, number: int) -> None:
        call = self._current()
        self.call = replace(call, params={**call.params, "limit": limit, "page": number})


@dataclass(frozen=True)
class Listing(Generic[U]):
    """The items of a list, as far as they could be read.

    :param skipped: the items that were too large to be read.
    :param truncated: the list has further items.
    """

    items: list[U]
    skipped: int
    truncated: bool

    @property
    def incomplete(self) -> bool:
        """Whether there are items that were not read."""
        return self.truncated or self.skipped > 0


def list_items(call: Call[Page[U]], max_requests: int = MAX_PAGES) -> Generator[Call[Any], Any, Listing[U]]:
    """Yield the calls that read a list page by page, and return what was read; of a long list, the newest items.

    The order of the lists is not documented.

    :raises BrowserActError: a page cannot be read, or the pages contradict each other.
    """
    pages: Pages[U] = Pages(call)
    items: list[U] = []
    truncated = False
    for left in reversed(range(max_requests)):
        if pages.call is None:
            break
        number, limit = (int(pages.call.params[name]) for name in ("page", "limit"))
        with pages.dividing():
            page: Page[U] = yield pages.call
            items += pages.take(page)
            total = page.total_pages or 0
            if 0 < left < total - number and _begins_with_the_oldest(page):
                pages.skip_to(total - left + 1, limit)
                truncated = True
    return Listing(items, pages.skipped, truncated or pages.call is not None)


def _begins_with_the_oldest(page: Page[Any]) -> bool:
    times = [item.created_at for item in page.items if item.created_at is not None]
    return len(times) > 1 and bool(times[0] < times[-1])
