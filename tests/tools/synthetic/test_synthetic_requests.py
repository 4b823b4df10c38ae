"""What a language model is asked for, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat import some_orders

from clipit_lib.errors import ClipItError
from companion import synthesize
from companion.synthesize import Order


def test_a_request_shows_the_examples_and_names_the_class() -> None:
    order = Order("T", "a tumor", 7, "breast", ("one", "two {}"), 0)
    system, user = order.messages
    assert (system["role"], user["role"]) == ("system", "user")
    said = user["content"]
    assert said.index("one") < said.index("two {}") < said.index("a tumor")
    assert "Organ: breast" in said and "report 7" in said
    other = replace(order, class_text="fat", number=8).messages[1]["content"]
    assert said.split("Write synthetic")[0] == other.split("Write synthetic")[0]


def test_orders_go_number_by_number_and_do_not_depend_on_how_many_follow() -> None:
    few, many = some_orders(2), some_orders(5)
    assert [order.id for order in few] == ["N-0001", "T-0001", "N-0002", "T-0002"]
    assert many[:4] == few
    assert len({order.seed for order in many}) == 10
    assert {order.seed for order in many}.isdisjoint(o.seed for o in some_orders(5, seed=1))
    assert all(0 <= order.seed < 2**31 for order in many)


def test_examples_are_drawn_once_without_repetition() -> None:
    texts = [str(number) for number in range(20)]
    chosen = synthesize.choose_examples(texts, 10, 0)
    assert len(set(chosen)) == 10 and set(chosen) < set(texts)
    assert chosen == synthesize.choose_examples(texts, 10, 0)
    assert chosen != synthesize.choose_examples(texts, 10, 1)
    with pytest.raises(ClipItError, match="21 examples of 20 reports"):
        synthesize.choose_examples(texts, 21, 0)


def test_an_estimate_worked_by_hand() -> None:
    """Examples of 18 and 19 characters: 18.5 / 4 tokens a report, six reports."""
    todo = some_orders()
    characters = sum(len(m["content"]) for order in todo for m in order.messages)
    said = synthesize.estimate(todo, todo[0].examples, price_in=2e6, price_out=8e6)
    assert f"6 requests, about {characters / 4:.0f} prompt tokens" in said
    assert f"and {6 * 18.5 / 4:.0f} completion tokens (counted as 4 characters a token)" in said
    assert f"cost about {2 * characters / 4 + 8 * 27.75:.2f}, in the currency" in said
    assert "cost not known" in synthesize.estimate(todo, [], price_in=2.0)
