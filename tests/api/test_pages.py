from collections.abc import Collection

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import pages as module
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Page, SourceInfo
from airflow_provider_browseract.api.pages import Listing, list_items
from tests.helpers.cases import cases
from tests.helpers.steps import carry_out


def call(limit: int = 2) -> Call[Page[SourceInfo]]:
    return Call("list", "GET", "/v2/workflow/list", Page[SourceInfo], {"page": 1, "limit": limit})


class Shop:
    """A service with a list of sources, as careless about it as a test wants.

    :param size: how many a page has, if not as many as were asked for.
    :param large: the sources that are too large for any page.
    """

    def __init__(self, count: int, *, size: int | None = None, large: Collection[int] = (), **numbers) -> None:
        self.items = [SourceInfo(id=str(number)) for number in range(count)]
        self.size, self.large, self.numbers = size, large, numbers
        self.asked: list[int] = []

    def answer(self, sent: Call[Page[SourceInfo]]) -> Page[SourceInfo] | Exception:
        number, limit = int(sent.params["page"]), int(sent.params["limit"])
        self.asked.append(number)
        size = self.size or limit
        items = self.items[(number - 1) * size : number * size]
        if any(item.id.isdecimal() and int(item.id) in self.large for item in items):
            return errors.ResponseTooLargeError("too large")
        return Page(items=tuple(items), **self.numbers)

    def listing(self, limit: int = 2, **more) -> Listing[SourceInfo]:
        return carry_out(list_items(call(limit), **more), self.answer)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2], ids=["smaller than asked", "as asked"])
@pytest.mark.parametrize("numbers", [{"total_count": ...}, {}, {"total_pages": 0}, {"total_pages": 1}], ids=str)
def test_list_is_read_to_its_end(count, size, numbers):
    known = "total_count" in numbers
    shop = Shop(count, size=size, **({"total_count": count} if known else numbers))
    assert shop.listing() == Listing(shop.items, 0, False)
    pages = -(-count // size)
    # Without a count, an empty page shows the end.
    assert shop.asked == list(range(1, (max(1, pages) if known else pages + 1) + 1))


@cases(
    ("more items", {"total_count": 9}, "page"),
    ("fewer items", {"total_count": 1}, "page"),
    ("ends before its last page", {"total_count": 2, "total_pages": 2}, "page 1 has a next page, after 0 items"),
)
def test_count_that_does_not_fit_the_items_raises(numbers, words):
    with pytest.raises(errors.UnexpectedResponseError, match=f"responses to list contradict each other: {words}"):
        Shop(3, **numbers).listing()


@pytest.mark.parametrize("numbers", [{}, {"total_count": 9}], ids=str)
def test_same_page_again_and_again_raises(numbers):
    shop = Shop(2, **numbers)
    shop.answer = lambda sent: Page(items=tuple(shop.items), **numbers)  # type: ignore[method-assign]
    with pytest.raises(errors.UnexpectedResponseError, match="page 2 has nothing new, after 2 items"):
        shop.listing()


def test_list_that_never_ends_raises(monkeypatch):
    monkeypatch.setattr(module, "MAX_PAGES", 20)
    with pytest.raises(errors.UnexpectedResponseError, match="page 20 has a next page, after 38 items"):
        Shop(1000).listing()
    shop = Shop(1000, large=range(1000))
    with pytest.raises(errors.ResponseTooLargeError):
        shop.listing(1)
    assert shop.asked == list(range(1, 21))


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 12, 500])
@pytest.mark.parametrize("large", [(), (0,), (5,), (19,), (3, 4, 11), range(20)], ids=str)
@pytest.mark.parametrize("numbers", [{"total_count": 20}, {}], ids=str)
def test_pages_that_are_too_large_are_divided_down_to_single_items_which_are_skipped(limit, large, numbers):
    shop = Shop(20, large=large, **numbers)
    left = [source for source in shop.items if int(source.id) not in large]
    assert shop.listing(limit) == Listing(left, len(large), False)
    # Each item that is too large costs only a few pages of each size.
    assert len(shop.asked) <= 22 + 20 * len(large)


@pytest.mark.parametrize(("max_requests", "count", "truncated"), [(1, 2, True), (2, 4, True), (3, 5, False)])
def test_list_is_truncated_after_the_last_allowed_request(max_requests, count, truncated):
    shop = Shop(5, total_count=5)
    assert shop.listing(max_requests=max_requests) == Listing(shop.items[:count], 0, truncated)


def test_item_that_moves_to_the_next_page_is_given_once():
    shop = Shop(4, total_count=4)
    answer = shop.answer

    def answer_after_an_insert(sent):
        if sent.params["page"] == 2:
            shop.items.insert(0, SourceInfo(id="new"))
            shop.numbers = {"total_count": 5}
            shop.answer = answer  # type: ignore[method-assign]
        return answer(sent)

    shop.answer = answer_after_an_insert  # type: ignore[method-assign]
    assert [source.id for source in shop.listing().items] == ["0", "1", "2", "3"]
