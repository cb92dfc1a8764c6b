"""What an exercise is, and how a learner's function is compared with its reference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

LEVELS = {"start": 1, "core": 2, "stretch": 3}  # points that nbgrader gives


def _plain(learned: Callable[..., Any], *given: Any) -> Any:
    return learned(*given)


@dataclass(frozen=True)
class Exercise:
    """A function that learners write.

    ``mistakes``: what went wrong and what to do -> a function that does it wrong; ``mutants``: further wrong functions. The check must refuse
    all of them. ``ask``: how the learner's function is asked (function, *input) where its value itself is free, as that of a hash.
    """

    level: str
    minutes: int
    reference: Callable[..., Any]
    inputs: Sequence[tuple[Any, ...]]
    mistakes: Mapping[str, Callable[..., Any]]
    mutants: Sequence[Callable[..., Any]]
    ask: Callable[..., Any] = _plain

    def _asked(self, learned: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """What a function says to one input, of which it gets a copy, so that it cannot change it for the next."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of means over nothing, which the answer shows as nan
            return self.ask(learned, *deepcopy(given))

    def answers(self, learned: Callable[..., Any]) -> list[Any]:
        """What a function says to each input; raises what it raises."""
        return [self._asked(learned, given) for given in self.inputs]

    def goes_on(self, learned: Callable[..., Any]) -> Callable[..., Any]:
        """A right function for the rest of a notebook: it gets copies, and what the reference gives as an array is one of it too."""
        array = self.ask is _plain and isinstance(self.answers(self.reference)[0], np.ndarray)

        @wraps(learned)
        def call(*given: Any) -> Any:
            value = learned(*deepcopy(given))
            return np.asarray(value) if array else value

        return call

    def fault(self, learned: Callable[..., Any]) -> str | None:
        """None where ``learned`` agrees with the reference on every input, else the mistake in words.

        Raises:
            NotImplementedError: the stub is still empty.
        """
        wanted, found = self.answers(self.reference), []
        for given in self.inputs:
            try:
                found.append(self._asked(learned, given))
            except NotImplementedError:
                raise
            except Exception as error:  # a learner's function may raise anything, and the notebook goes on
                return f"your function raised {type(error).__name__}: {error}; it was given {_told(given)}"
        if all(map(agree, found, wanted)):
            return None
        for words, wrong in self.mistakes.items():
            if all(map(agree, found, self.answers(wrong))):
                return words
        first = next(i for i, pair in enumerate(zip(found, wanted, strict=True)) if not agree(*pair))
        asked = "the two are" if self.ask is not _plain else "it gives"
        return f"given {_told(self.inputs[first])} {asked} {_short(found[first])}, not {_short(wanted[first])}"


def agree(found: Any, wanted: Any) -> bool:
    """Numbers and arrays to .1 % (or 1e-4) and of the same shape, nan like nan; all else equal."""
    try:
        left, right = np.asarray(found, float), np.asarray(wanted, float)
    except (TypeError, ValueError):
        return bool(np.array_equal(np.asarray(found, object), np.asarray(wanted, object)))
    return left.shape == right.shape and np.allclose(left, right, rtol=1e-3, atol=1e-4, equal_nan=True)


def _short(value: Any) -> str:
    """A value in one line."""
    text = np.array2string(value, precision=3, separator=", ") if isinstance(value, np.ndarray) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _told(given: tuple[Any, ...]) -> str:
    return " and ".join(map(_short, given))
