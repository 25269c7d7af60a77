"""Totals of use, in memory, and how they are grouped."""

from datetime import date

from serve_app.access.usage.memory import MemoryLedger
from serve_app.access.usage.totals import OTHERS, Row, Use, as_csv, days_between, grouped
from serve_app.limit_settings import Cost

MONDAY, TUESDAY = "2026-11-30", "2026-12-01"
ADA = Row(MONDAY, "ada", "science", "a:latest")


COST = Cost.model_validate({"in": 3, "cached": 0.5, "out": 12})


def cost(model: str) -> Cost:
    return COST if model == "large:latest" else Cost()


def use(requests: int = 1, tokens: int = 0) -> Use:
    return Use(requests, tokens, 0, 2 * tokens, 0)


async def test_a_total_is_the_sum_of_its_requests() -> None:
    """Each row for itself."""
    ledger = MemoryLedger(keep_days=2)
    for tokens in (3, 4):
        ledger.add(ADA, use(tokens=tokens))
    ledger.add(ADA._replace(model="b:latest"), use(tokens=1))
    totals = await ledger.read([MONDAY, TUESDAY])
    assert totals == {ADA: use(2, 7), ADA._replace(model="b:latest"): use(1, 1)}


async def test_what_was_read_does_not_change() -> None:
    """Though the ledger goes on counting."""
    ledger = MemoryLedger(keep_days=2)
    ledger.add(ADA, use())
    totals = await ledger.read([MONDAY])
    ledger.add(ADA, use())
    assert totals[ADA].requests == 1


async def test_old_days_are_dropped() -> None:
    """As many as `keep_days` stay."""
    ledger = MemoryLedger(keep_days=2)
    for day in (MONDAY, TUESDAY, "2026-12-02"):
        ledger.add(ADA._replace(day=day), use())
    assert ledger.days == [TUESDAY, "2026-12-02"]


async def test_many_names_share_a_row() -> None:
    """A ledger grows to a bound, and counts everything."""
    ledger = MemoryLedger(keep_days=2, max_rows=3)
    for number in range(100):
        ledger.add(ADA._replace(key=f"jwt:{number}"), use())
    totals = await ledger.read([MONDAY])
    assert len(totals) == 4
    assert totals[Row(MONDAY, OTHERS, OTHERS, OTHERS)].requests == 97


def test_rows_are_grouped_by_some_fields() -> None:
    """In the order asked for, and sorted."""
    totals = {
        ADA: use(1, 5),
        ADA._replace(day=TUESDAY): use(2, 5),
        Row(MONDAY, "bob", "", "a:latest"): use(1, 1),
    }
    assert [
        (r["key"], r["requests"], r["prompt_tokens"]) for r in grouped(totals, ["key"], cost)
    ] == [
        ("ada", 3, 10),
        ("bob", 1, 1),
    ]
    assert [list(r)[:2] for r in grouped(totals, ["day", "group"], cost)] == [["day", "group"]] * 3


def test_tokens_are_weighed_by_the_cost_of_their_model() -> None:
    """As limits count them, also where rows of several models are one record."""
    totals = {ADA: Use(1, 10, 4, 5, 0), ADA._replace(model="large:latest"): Use(1, 10, 4, 5, 0)}
    assert [record["weighted_tokens"] for record in grouped(totals, ["model"], cost)] == [15, 80.0]
    (record,) = grouped(totals, ["key"], cost)
    assert record["weighted_tokens"] == 15 + 3 * 6 + 0.5 * 4 + 12 * 5


def test_a_table_has_a_line_of_names() -> None:
    """And no formula that a spreadsheet would run."""
    text = as_csv(grouped({ADA._replace(key="=1+1"): use(1, 5)}, ["key"], cost), ["key"])
    names, line = text.splitlines()
    assert names.startswith("key,requests,prompt_tokens,")
    assert line == "'=1+1,1,5,0,10,0,15"


def test_days_include_both_ends() -> None:
    assert days_between(date(2026, 11, 30), date(2026, 12, 1)) == [MONDAY, TUESDAY]
