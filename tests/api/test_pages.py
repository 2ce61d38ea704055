from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.api import errors, v2
from airflow_provider_browseract.api import pages as module
from airflow_provider_browseract.api.exchange import Call, Response
from airflow_provider_browseract.api.models import Page, Region, read_page
from airflow_provider_browseract.api.pages import Pages, list_items
from tests.steps import carry_out


class Shop:
    """A service with a list of regions, as careless about it as a test wants.

    :param count: how many there are.
    :param size: how many a page has.
    :param numbers: what comes with each page, computed from the number of the page.
    """

    def __init__(self, count: int, *, size: int = 2, **numbers) -> None:
        self.items = [Region(str(number)) for number in range(count)]
        self.size = size
        self.numbers = numbers
        self.asked: list[int] = []

    def page(self, number: int) -> Page[Region]:
        begin = (number - 1) * self.size
        return Page(tuple(self.items[begin : begin + self.size]), **self.numbers)

    def call(self, limit: int = 2) -> Call[Page[Region]]:
        return Call("list", "GET", "/v2/workflow/list", read_page(Region.read), {"page": 1, "limit": limit})

    def read(self, limit: int = 2) -> list[Region]:
        pages = Pages(self.call(limit))
        found: list[Region] = []
        while pages.call is not None:
            assert pages.call.params["limit"] == limit
            number = int(pages.call.params["page"])
            self.asked.append(number)
            found += pages.take(self.page(number))
        return found


class TestPages:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
    @pytest.mark.parametrize("size", [1, 2], ids=["smaller than asked", "as asked"])
    @pytest.mark.parametrize("known", [True, False], ids=["with total_count", "without numbers"])
    def test_list_is_read_to_its_end(self, count, size, known):
        shop = Shop(count, size=size, **({"total_count": count} if known else {}))
        assert shop.read() == shop.items
        pages = -(-count // size)
        # Without a count, an empty page shows the end.
        assert shop.asked == list(range(1, (max(1, pages) if known else pages + 1) + 1))

    @pytest.mark.parametrize("total_pages", [0, 1])
    def test_total_pages_alone_does_not_end_a_list(self, total_pages):
        shop = Shop(5, total_pages=total_pages)
        assert shop.read() == shop.items

    @pytest.mark.parametrize("total_count", [9, 1], ids=["more items", "fewer items"])
    def test_count_that_does_not_fit_the_items_raises(self, total_count):
        with pytest.raises(errors.UnexpectedResponseError, match="responses to list contradict each other: page"):
            Shop(3, total_count=total_count).read()

    def test_count_that_ends_the_list_before_its_last_page_raises(self):
        with pytest.raises(errors.UnexpectedResponseError, match="page 1 has a next page, after 0 items"):
            Shop(3, total_count=2, total_pages=2).read()

    @pytest.mark.parametrize("numbers", [{}, {"total_count": 9}], ids=str)
    def test_same_page_again_and_again_raises(self, numbers):
        shop = Shop(2, **numbers)
        shop.page = lambda number: Page(tuple(shop.items), **numbers)  # type: ignore[method-assign]
        with pytest.raises(errors.UnexpectedResponseError, match="page 2 has nothing new, after 2 items"):
            shop.read()

    def test_list_that_never_ends_raises(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_PAGES", 20)
        with pytest.raises(errors.UnexpectedResponseError, match="page 20 has a next page, after 38 items"):
            Shop(1000).read()

    @pytest.mark.parametrize("limit", [1, 7, 8, 12, 500])
    @pytest.mark.parametrize("large", [(), (0,), (5,), (19,), (3, 4, 11), range(20)], ids=str)
    @pytest.mark.parametrize("known", [True, False], ids=["with total_count", "without numbers"])
    def test_pages_that_are_too_large_are_divided_down_to_single_items(self, limit, large, known):
        shop = Shop(20, **({"total_count": 20} if known else {}))
        pages = Pages(Call("list", "GET", "/v2/workflow/list", read_page(Region.read), {"page": 1, "limit": limit}))
        found: list[Region] = []
        limits: list[int] = []
        while pages.call is not None:
            limits.append(int(pages.call.params["limit"]))
            shop.size = limits[-1]
            page = shop.page(int(pages.call.params["page"]))
            if any(int(region.code) in large for region in page.items):
                pages.divide(errors.ResponseTooLargeError("too large"))
            else:
                found += pages.take(page)
        assert [int(region.code) for region in found] == [number for number in range(20) if number not in large]
        assert len(pages.skipped) == len(large)
        # Each item that is too large costs only a few pages of each size.
        assert len(limits) <= 22 + 20 * len(large)

    def test_list_of_which_no_item_can_be_read_ends_with_the_error(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_PAGES", 20)
        pages = Pages(Call("list", "GET", "/v2/workflow/list", read_page(Region.read), {"page": 1, "limit": 8}))
        too_large = errors.ResponseTooLargeError("too large")

        def read() -> None:
            while pages.call is not None:
                pages.divide(too_large)

        with pytest.raises(errors.ResponseTooLargeError):
            read()
        assert len(pages.skipped) == 20

    def test_item_that_moves_to_the_next_page_is_given_once(self):
        shop = Shop(4, total_count=4)
        read = shop.page

        def page(number: int) -> Page[Region]:
            if number == 2 and len(shop.items) == 4:
                shop.items.insert(0, Region("new"))
                shop.numbers = {"total_count": 5}
            return read(number)

        shop.page = page  # type: ignore[method-assign]
        assert [region.code for region in shop.read()] == ["0", "1", "2", "3"]

    def test_item_that_cannot_be_read_counts_and_is_named(self):
        pages = Pages(v2.list_workflows())
        assert pages.call is not None
        body = {"items": [{"id": "1"}, {"name": "shop"}, "?", {"id": "2"}], "total_count": 4}
        found = pages.take(pages.call.read_response(Response(200, {}, json.dumps(body).encode())))
        assert [workflow.id for workflow in found] == ["1", "2"]
        assert pages.call is None
        assert [each.split(":")[0] for each in pages.skipped] == ["one without an id"] * 2

    @pytest.mark.parametrize("readable", [False, True])
    def test_list_is_unreadable_only_if_no_item_at_all_can_be_read(self, readable):
        pages = Pages(Call("list", "GET", "/v2/workflow/list", read_page(Region.read), {"page": 1, "limit": 1}))
        pages.divide(errors.ResponseTooLargeError("too large"))
        pages.take(Page((), total_count=3, skipped=("one without an id",)))
        pages.take(Page((Region("2"),) if readable else (), total_count=3, skipped=() if readable else ("another",)))
        assert pages.call is None
        if readable:
            pages.raise_if_unreadable()
            return
        with pytest.raises(errors.UnexpectedResponseError, match=r"none of the 3 items .* responses to list can be"):
            pages.raise_if_unreadable()

    def test_page_after_the_last_is_an_error_of_the_caller(self):
        pages = Pages(v2.list_workflows())
        pages.take(Page(()))
        with pytest.raises(ValueError, match="the list has ended"):
            pages.take(Page(()))


class TestListItems:
    @pytest.mark.parametrize(("max_requests", "count", "truncated"), [(1, 2, True), (2, 4, True), (3, 5, False)])
    def test_list_is_truncated_after_the_last_allowed_request(self, max_requests, count, truncated):
        shop = Shop(5, total_count=5)
        listing = carry_out(list_items(shop.call(), max_requests), lambda call: shop.page(call.params["page"]))
        assert (len(listing.items), listing.truncated, listing.skipped) == (count, truncated, [])

    def test_page_that_is_too_large_is_divided_and_an_item_that_is_too_large_alone_is_skipped(self):
        shop = Shop(3, total_count=3)

        def answer(call):
            shop.size = call.params["limit"]
            # The first item is too large.
            if call.params["page"] == 1:
                return errors.ResponseTooLargeError("too large")
            return shop.page(call.params["page"])

        listing = carry_out(list_items(shop.call()), answer)
        assert [region.code for region in listing.items] == ["1", "2"]
        assert (listing.skipped, listing.truncated) == (["one without an id: too large"], False)

    def test_other_error_ends_the_list(self):
        with pytest.raises(errors.ServerError):
            carry_out(list_items(Shop(1).call()), lambda _: errors.ServerError("it is down"))
