"""Read a list page by page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic, TypeVar

from airflow_provider_browseract.api.errors import BrowserActError, UnexpectedResponseError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import Page

U = TypeVar("U")

MAX_PAGES = 1000
"""Pages after which a list counts as invalid."""


class Pages(Generic[U]):
    """Go through the pages of a list up to its end.

    The document does not require any of the numbers of a page, so each of them may be missing, and a gateway may return
    the first page for every page. A list that contradicts itself is an error. If it counted as a short list, it would
    hide a run that uses credits.

    :param call: the call for the first page.
    """

    def __init__(self, call: Call[Page[U]]) -> None:
        self.call: Call[Page[U]] | None = call
        """The call for the next page; None after the last one."""

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
        number, count, before = int(self.call.params["page"]), len(page.items) + len(page.skipped), self._position
        new = {getattr(item, "id", item): item for item in page.items}
        new = {key: item for key, item in new.items() if key not in self._seen}
        self._position += count
        self._taken += 1
        self._total = page.total_count
        self._seen |= new.keys()
        self.skipped += page.skipped
        if not new and not page.skipped:
            if not self._may_end(page, number, before):
                raise self._contradiction(number, page, "nothing new")
            self.call = None
            return []
        if page.total_count is not None and self._position > page.total_count:
            raise self._contradiction(number, page, f"item {self._position}")
        if page.total_count is None and page.total_pages is not None and number > page.total_pages:
            raise self._contradiction(number, page, f"{count} items")
        if not self._continues(page, number, count):
            self.call = None
        elif self._taken >= MAX_PAGES:
            raise self._contradiction(number, page, "a next page")
        else:
            self._proceed(number + 1)
        return list(new.values())

    def divide(self, error: BrowserActError) -> None:
        """Set :attr:`call` to a smaller page, because the page that it returned was too large to be read.

        A page with one item cannot be smaller, so the item is skipped. Later pages are larger again.

        :param error: the error of the call.
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

    def _may_end(self, page: Page[U], number: int, before: int) -> bool:
        """Return whether the list may end before a page without new items."""
        if page.total_count is not None:
            return before >= page.total_count
        if page.total_pages is not None:
            return number > page.total_pages or number == 1
        return not page.items

    def _continues(self, page: Page[U], number: int, count: int) -> bool:
        """Return whether another page may follow a page with new items."""
        more_pages = page.total_pages is not None and number < page.total_pages
        if page.total_count is not None:
            return more_pages or self._position < page.total_count
        if page.total_pages is not None:
            return more_pages
        # A page may be smaller than requested. Only a limit in the response shows that it is not full.
        return page.limit is None or count >= page.limit

    def _contradiction(self, number: int, page: Page[U], what: str) -> UnexpectedResponseError:
        assert self.call is not None
        numbers = f"total_count {page.total_count}, total_pages {page.total_pages}, limit {page.limit}"
        return UnexpectedResponseError(
            f"BrowserAct's responses to {self.call.name} contradict each other: page {number} has {what}, after "
            f"{self._position - len(page.items) - len(page.skipped)} items ({numbers})"
        )
