"""Enforce a limit of dollars that is never exceeded, even with many concurrent requests."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from distill.endpoints.answers import JsonObject
from distill.errors import JobFailed
from distill.wording import in_dollars

__all__ = ["Budget", "BudgetSpent"]


class BudgetSpent(JobFailed):
    """The next request could cost more than the rest of the budget."""


class Budget:
    """A limit of dollars that is never exceeded: the highest price of a request is held before it is sent.

    :param limit: dollars; None counts without a limit
    :param spent: dollars spent by earlier runs
    :param record: called with each change before it takes effect, so that it survives a kill
    """

    def __init__(
        self, limit: float | None, *, spent: float = 0.0, record: Callable[[JsonObject], None] = lambda change: None
    ) -> None:
        self.limit, self.spent = limit, spent
        self._record = record
        self._held: dict[str, float] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def hold(self, dollars: float) -> str:
        """Hold dollars and return the name of the hold; wait while open holds may still return some dollars.

        :raises BudgetSpent: if too little is left and there is no open hold.
        """
        while self.limit is not None and self.spent + sum(self._held.values()) + dollars > self.limit:
            if not self._held:
                raise BudgetSpent(
                    f"the budget of {in_dollars(self.limit)} is used up: {in_dollars(self.spent)} are spent "
                    f"and the next request may cost {in_dollars(dollars)}"
                )
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        name = uuid4().hex
        self._record({"hold": name, "dollars": dollars})
        self._held[name] = dollars
        return name

    def settle(self, hold: str, dollars: float | None) -> None:
        """Replace a hold by the price really paid; None, for a server that stated no usage, counts the whole hold."""
        paid = self._held[hold] if dollars is None else dollars
        self._record({"settled": hold, "dollars": paid})
        del self._held[hold]
        self.spent += paid
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
