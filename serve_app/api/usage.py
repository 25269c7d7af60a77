"""Records of use: every request adds to the totals, and callers may read them."""

import logging
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs

from serve_app.access.limits.days import Calendar
from serve_app.access.usage.memory import MemoryLedger
from serve_app.access.usage.totals import (
    Ledger,
    LedgerAway,
    Row,
    Totals,
    Use,
    as_csv,
    days_between,
    grouped,
)
from serve_app.api.fleet_pages import AdminAccess
from serve_app.api.http import Request, Send, send_body, send_json
from serve_app.api.request_trace import Observer, RequestTrace
from serve_app.errors import BadRequest, Forbidden, StoreDown
from serve_app.fleet.advice import NEEDS_ADMIN_KEY
from serve_app.limit_settings import Cost
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve")

_CSV = [(b"content-type", b"text/csv; charset=utf-8")]
_FIELDS = ("key", "group", "model", "day")
_MAX_DAYS = 366
_FIRST_DAY = date(1000, 1, 1)  # a day that has others before it
_DEFAULT_DAYS = 30
_PARAMETERS = {"since", "until", "days", "by", "format"}


class UsageRecorder:
    """Adds every request of a caller with a key to the totals."""

    def __init__(self, ledger: Ledger, calendar: Calendar) -> None:
        self._ledger = ledger
        self._calendar = calendar

    def began(self, trace: RequestTrace) -> None:
        """Do nothing: no use is known yet."""

    def ended(self, trace: RequestTrace) -> None:
        caller, usage = trace.caller, trace.usage
        if not caller.name or usage.prompt is usage.generated is None:
            return  # no engine has worked on it
        use = Use(
            *(1, usage.prompt or 0, usage.cached or 0, usage.generated or 0), int(trace.estimated)
        )
        self._ledger.add(
            Row(self._calendar.today().name, caller.name, caller.group, trace.model), use
        )

    def note_keys_file(self, valid: bool) -> None:
        """Do nothing: use does not depend on the file."""

    def close(self) -> None:
        """Do nothing: the owner of the ledger closes it."""


class Observers:
    """Passes every request to several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def began(self, trace: RequestTrace) -> None:
        for observer in self._observers:
            observer.began(trace)

    def ended(self, trace: RequestTrace) -> None:
        for observer in self._observers:
            try:
                observer.ended(trace)
            except Exception:  # the others still count the request
                logger.exception("failed to observe a request")

    def note_keys_file(self, valid: bool) -> None:
        for observer in self._observers:
            observer.note_keys_file(valid)

    def close(self) -> None:
        for observer in self._observers:
            observer.close()


def build_ledger(settings: Settings) -> Ledger:
    """Build the ledger where limits are counted too: in memory, or in their Redis."""
    limits = settings.limits
    if limits.redis_url is None:
        return MemoryLedger(settings.usage.keep_days)
    from serve_app.access.limits.redis_connection import redis_client  # its import takes 50 ms
    from serve_app.access.usage.redis import RedisLedger

    client = redis_client(limits.redis_url.get_secret_value(), limits.redis_password_file)
    return RedisLedger(client, settings.usage.keep_days)


class UsagePages:
    """Handlers of `/usage` and `/admin/usage`.

    `cost`: the weights of a model's tokens. `problem`: the reason why this process's totals are
    not those of the service, or "".
    """

    def __init__(
        self,
        ledger: Ledger,
        calendar: Calendar,
        timezone: str,
        access: AdminAccess,
        cost: Callable[[str], Cost],
        problem: str = "",
    ) -> None:
        self._ledger = ledger
        self._access = access
        self._calendar = calendar
        self._timezone = timezone
        self._cost = cost
        self._problem = problem

    async def own(self, request: Request, send: Send, trace: RequestTrace) -> None:
        """Answer a key with its own use and limits."""
        caller = trace.caller
        if not caller.name:
            raise Forbidden("usage is counted by key, and this service needs none")
        query = self._query(request, by="day,model")
        totals = await self._read(query)
        rows = {row: use for row, use in totals.items() if row.key == caller.name}
        about = {
            "key": caller.name,
            "group": caller.group or None,
            "limits": caller.limits.model_dump(exclude_none=True),
            "group_limits": caller.group_limits.model_dump(exclude_none=True),
        }
        await self._send(rows, query, about, send, trace)

    async def everyone(self, request: Request, send: Send, trace: RequestTrace) -> None:
        """Answer an admin key with the use of all keys."""
        if not trace.caller.admin:
            self._access.check_possible()
            raise Forbidden(NEEDS_ADMIN_KEY)
        query = self._query(request, by="key")
        await self._send(await self._read(query), query, {}, send, trace)

    async def _send(
        self, totals: Totals, query: "Query", about: dict[str, Any], send: Send, trace: RequestTrace
    ) -> None:
        """Answer with the totals as CSV, or as JSON behind the fields in `about`."""
        records = grouped(totals, query.by, self._cost)
        trace.note_status(200)
        if query.csv:
            await send_body(send, 200, as_csv(records, query.by).encode(), _CSV)
        else:
            page = {**about, **query.described(self._timezone), "data": records}
            await send_json(send, page)

    def _query(self, request: Request, by: str) -> "Query":
        return Query(request.query, date.fromisoformat(self._calendar.today().name), by)

    async def _read(self, query: "Query") -> Totals:
        if self._problem:
            raise StoreDown(self._problem)
        try:
            return await self._ledger.read(days_between(query.since, query.until))
        except LedgerAway as exc:
            raise StoreDown(str(exc)) from exc


class Query:
    """The query of a request for usage. Raises BadRequest, which names the parameter."""

    def __init__(self, text: str, today: date, by: str) -> None:
        try:
            values = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text))
        except ValueError as exc:
            raise BadRequest(f"the query can't be read: {exc}") from exc
        if unknown := values.keys() - _PARAMETERS:
            raise BadRequest(
                f"{min(unknown)[:80]} is not a parameter: use since, until, days, by or format"
            )
        first = {name: given[-1] for name, given in values.items()}
        self.until = _day(first, "until", today)
        before = timedelta(_days(first) - 1)
        self.since = _day(first, "since", self.until - before)
        self.by = tuple(_names(first.get("by", by)))
        self.csv = _format(first.get("format", "json")) == "csv"
        if not 0 <= (self.until - self.since).days < _MAX_DAYS:
            raise BadRequest(
                f"since ({self.since}) must be at most {_MAX_DAYS - 1} days before until "
                f"({self.until})"
            )

    def described(self, timezone: str) -> dict[str, Any]:
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "timezone": timezone,
            "by": self.by,
        }


def _days(values: dict[str, str]) -> int:
    text = values.get("days", str(_DEFAULT_DAYS))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= _MAX_DAYS):
        raise BadRequest(f"days must be between 1 and {_MAX_DAYS}, not {text[:80]!r}")
    if "days" in values and "since" in values:
        raise BadRequest("days and since can't be used together: use one of them")
    return int(text)


def _day(values: dict[str, str], name: str, default: date) -> date:
    try:
        day = date.fromisoformat(values[name]) if name in values else default
    except ValueError:
        day = date.min
    if day < _FIRST_DAY:
        raise BadRequest(f"{name} must be a day such as {default}")
    return day


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in _FIELDS]:
        raise BadRequest(f"by can't be {unknown[0][:80]!r}: use key, group, model and day")
    return names


def _format(text: str) -> str:
    if text not in ("json", "csv"):
        raise BadRequest(f"format can't be {text[:80]!r}: use json or csv")
    return text
