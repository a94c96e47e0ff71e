"""A sum of dollars that is never exceeded, also when many requests are under way."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from distill.endpoints.answers import JsonObject
from distill.errors import JobFailed
from distill.wording import in_dollars

__all__ = ["Budget", "BudgetSpent"]


class BudgetSpent(JobFailed):
    """The next request could cost more than what is left of the budget."""


class Budget:
    """A sum of dollars that is never exceeded: what a request may cost is held before it is sent.

    :param limit: None counts without a limit
    :param spent: what earlier runs have spent
    :param record: called with each change before it counts, to survive a kill
    """

    def __init__(
        self, limit: float | None, *, spent: float = 0.0, record: Callable[[JsonObject], None] = lambda change: None
    ) -> None:
        self.limit, self.spent = limit, spent
        self._record = record
        self._held: dict[str, float] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def hold(self, dollars: float) -> str:
        """Set dollars aside and return the name of the hold; waits while others may yet give some back.

        :raises BudgetSpent: where too little is left and nothing is on its way back.
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
        """Replace a hold by what was really paid; None counts all of the hold: the server stated no usage."""
        paid = self._held[hold] if dollars is None else dollars
        self._record({"settled": hold, "dollars": paid})
        del self._held[hold]
        self.spent += paid
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
