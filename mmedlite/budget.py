"""A budget for paid answers, in requests, tokens and dollars: it stops before the call that could break it."""

from __future__ import annotations

import functools
import threading
from typing import NamedTuple

from mmedlite.profiles import InputError


class BudgetReached(InputError):
    """The next call could break the budget, so it was not made."""


class Cost(NamedTuple):
    """Requests, tokens (input and output together) and dollars."""

    requests: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def plus(self, other: Cost) -> Cost:
        """The sum."""
        return Cost(self.requests + other.requests, self.tokens + other.tokens, self.dollars + other.dollars)


class Budget:
    """What one process may spend; shared by its threads.

    Args:
        limit: 0 in any place is no limit there.

    Attributes:
        spent: by the calls that are settled.
    """

    def __init__(self, limit: Cost) -> None:
        self.limit, self.spent = limit, Cost()
        self._reserved: list[Cost] = []  # of the calls under way
        self._change = threading.Condition()

    def reserve(self, most: Cost) -> None:
        """Set aside the most that a call can cost. Where the calls under way might leave too little for it, wait what they do cost.

        Raises:
            BudgetReached: that is more than is left; nothing is set aside.
        """
        with self._change:
            while found := self._beyond(functools.reduce(Cost.plus, self._reserved, self.spent.plus(most))):
                if (alone := self._beyond(self.spent.plus(most))) or not self._reserved:
                    name, value, limit = alone or found
                    what = f"the next call could bring {name} to {value:,.6g} of {limit:,.6g}, so it was not made"
                    raise BudgetReached(what, f"endpoint.max_{name}", "raise it and run again: all answers so far are stored")
                self._change.wait()
            self._reserved.append(most)

    def settle(self, most: Cost, cost: Cost) -> None:
        """A call for which ``most`` was set aside has cost ``cost``."""
        with self._change:
            self._reserved.remove(most)
            self.spent = self.spent.plus(cost)
            self._change.notify_all()

    def _beyond(self, cost: Cost) -> tuple[str, float, float] | None:
        """The first limit that a cost passes: its name, the cost and the limit."""
        parts = zip(Cost._fields, cost, self.limit, strict=True)
        return next(((name, value, limit) for name, value, limit in parts if limit and value > limit), None)
