"""What passes between the search, in its thread, and Ray Tune, in another: questions over a counter, and letters."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any

LAST = "last"  # the answer to Asked where the search has nothing more


class Closed(BaseException):
    """The search has gone: nobody answers. No Exception, so that it passes through code that goes on after errors."""


class Letter:
    """Bytes inside Ray Tune's configurations and results, which Tune keeps and writes about; empty once opened.

    Tune copies, prints and stores what it is given for every trial. A letter is never copied within a process, prints
    as a word, and weighs nothing when it has been read.
    """

    def __init__(self, content: bytes) -> None:
        """Put the bytes in."""
        self._content = content

    def read(self) -> bytes:
        """What is in it."""
        return self._content

    def open(self) -> bytes:
        """Take out what is in it."""
        content, self._content = self._content, b""
        return content

    def __deepcopy__(self, memo: dict[int, Any]) -> Letter:
        return self

    def __repr__(self) -> str:
        return "letter"


@dataclass(frozen=True, slots=True)
class Asked:
    """Tune asks for a job for its trial. Answer: a letter, None where there is none now, or LAST."""

    trial: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A trial sends word of an epoch. Answer: whether it goes on, given when the word is filed."""

    trial: str
    letter: Letter


@dataclass(frozen=True, slots=True)
class Lost:
    """A trial ended without word, for a reason. Answer: None."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Tune has ended, with an error or as it should. No answer is waited for."""

    error: BaseException | None


Question = Asked | Heard | Lost | Ended


class Counter:
    """One thread asks and waits, the other hears and answers. What is not answered does not go on."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Counter:
        return self

    def __reduce__(self) -> tuple[type[Counter], tuple[()]]:
        return Counter, ()  # Tune writes its settings to a file, which nobody reads

    def ask(self, question: Question) -> Any:
        """Ask, and wait for the answer; raises Closed when there will be none."""
        self.look()
        self._questions.put(question)
        answer = self._answers.get()
        self.look()
        return answer

    def tell(self, news: Ended) -> None:
        """Say what needs no answer."""
        self._questions.put(news)

    def look(self) -> None:
        """Raise Closed if the search has gone."""
        if self._closed:
            raise Closed

    def hear(self, seconds: float) -> Question | None:
        """The next question; None where none comes for so many seconds."""
        try:
            return self._questions.get(timeout=seconds)
        except queue.Empty:
            return None

    def answer(self, what: Any) -> None:
        """Answer the question that was heard."""
        self._answers.put(what)

    def close(self) -> None:
        """Answer nothing more; whoever waits gets Closed."""
        self._closed = True
        self._answers.put(None)
