"""The client: asks an endpoint many things at once, each until it is answered, and pays for each once."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import stamina

from deft_engine.endpoints.budget import TokenBudget
from deft_engine.endpoints.cache import CACHE_VARIABLE, AnswerCache, CacheEntry
from deft_engine.endpoints.chat import ChatAnswer, ChatRequest, read_answer, request_key
from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.endpoints.pacing import Pacer
from deft_engine.endpoints.secrets import ApiKey
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.endpoints.transport import GuardedTransport, http
from deft_engine.errors import EndpointError, EndpointUnavailable

if TYPE_CHECKING:
    from deft_engine.events import EventWriter
    from deft_engine.run import StageContext, StopRequest

TRIES = {
    "endpoint_rate_limited": 8,
    "endpoint_server_error": 8,
    "endpoint_cut_off": 8,
    "endpoint_timeout": 4,
    "endpoint_unreachable": 4,
    "endpoint_invalid_json": 4,  # a proxy's hiccup, or a wrong address
    "endpoint_html": 4,
}
"""How often a request may end so before it is given up; what is not listed is never repeated."""

_UNPAID = {
    "endpoint_rate_limited",
    "endpoint_server_error",
    "endpoint_unreachable",
    "endpoint_refused",
    "endpoint_unauthorised",
    "endpoint_redirect",
    "endpoint_not_allowed",
}
"""Ends without a completion. Whatever else goes wrong may have been paid for, and counts in full."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds between tries, doubled each time, with jitter
_LONGEST_HOLD = 60.0  # seconds, whatever Retry-After says
_LARGEST_ANSWER = 32 * 2**20
_LOOK_SECONDS = 0.2
_PROGRESS_EVENTS = 200


class ChatClient:
    """Asks one endpoint; a context manager, safe for threads.

    Args:
        spec: the endpoint.
        key: its key.
        allowed: hosts that may be asked.
        cache: where answers are kept.
        ledger: the file of the token budget.
        stop: asked between answers.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        *,
        key: ApiKey,
        allowed: AllowedHosts,
        cache: AnswerCache,
        ledger: Path,
        stop: StopRequest,
    ) -> None:
        self._spec = spec
        self._key = key
        self._cache = cache
        self._stop = stop
        self._stopping = threading.Event()
        self._budget = TokenBudget(ledger, spec.token_budget, self._stopping)
        self._pacer = Pacer(spec.requests_per_minute, self._stopping)
        self._http = http.Client(
            transport=GuardedTransport(allowed, spec.concurrency),
            timeout=http.Timeout(spec.timeout, connect=min(10.0, spec.timeout)),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "deft",
                **key.headers,
            },
            follow_redirects=False,
        )
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def open(cls, context: StageContext[Any], name: str = "endpoint") -> Self:
        """The client of a stage's input ``name``, by this process's environment.

        Raises:
            EndpointError: the key is not set.
        """
        spec = EndpointSpec.from_uri(context.inputs[name])
        return cls(
            spec,
            key=ApiKey.from_environment(spec.api_key_env),
            allowed=AllowedHosts.from_environment(),
            cache=AnswerCache(Path(os.environ.get(CACHE_VARIABLE) or context.work / "answers")),
            ledger=context.work / f"{name}-spending.jsonl",
            stop=context.stop,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._budget.close()

    def answers(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatAnswer]]:
        """Each request's position with its answer, as they come.

        Raises:
            EndpointError: a request cannot be answered; the others' answers that came are kept.
            Interrupted: asked to stop.
        """
        with ThreadPoolExecutor(self._spec.concurrency) as pool:
            futures = {pool.submit(self.ask, request): index for index, request in enumerate(requests)}
            pending = set(futures)
            try:
                while pending:
                    done, pending = wait(pending, _LOOK_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        yield futures[future], future.result()
                    self._stop.check()
            except BaseException:
                self._stopping.set()  # who waits gives up; what is under way is received and kept
                pool.shutdown(cancel_futures=True)
                raise

    def collect(self, requests: Sequence[ChatRequest], events: EventWriter) -> list[ChatAnswer]:
        """Every request's answer, in their order, with progress on the way. Raises as ``answers``."""
        found: dict[int, ChatAnswer] = {}
        step = max(1, len(requests) // _PROGRESS_EVENTS)
        for index, answer in self.answers(requests):
            found[index] = answer
            if len(found) % step == 0 or len(found) == len(requests):
                events.progress(len(found), len(requests))
        return [found[index] for index in range(len(requests))]

    def ask(self, request: ChatRequest) -> ChatAnswer:
        """The answer to a request: a kept one, or a new one, paid for.

        Raises:
            EndpointError: it cannot be answered.
            Interrupted: asked to stop.
        """
        body = request.body(self._spec.model)
        with self._cache.claimed(request_key(self._spec.completions_url, body)) as entry:
            kept = entry.read()
            if kept is not None:
                self._count("kept")
                return ChatAnswer.from_dict(kept)
            return self._until_answered(body, request.worst_case, entry)

    @property
    def usage(self) -> dict[str, int]:
        """``tokens`` spent, ``requests`` answered anew, ``kept`` answers used, ``faults`` met."""
        counted = {name: self._counts[name] for name in ("requests", "kept", "faults")}
        return {"tokens": self._budget.spent, **counted}

    def _count(self, what: str) -> None:
        with self._counting:
            self._counts[what] += 1

    def _until_answered(self, body: bytes, worst_case: int, entry: CacheEntry) -> ChatAnswer:
        met: Counter[str] = Counter()

        def worth_repeating(error: Exception) -> bool:
            if not isinstance(error, EndpointError) or self._stopping.is_set():
                return False
            return met[error.error_code] < TRIES.get(error.error_code, 0)

        for attempt in stamina.retry_context(
            on=worth_repeating,
            attempts=max(TRIES.values()),
            timeout=None,
            wait_initial=_FIRST_PAUSE,
            wait_max=_LONGEST_PAUSE,
        ):
            with attempt:
                try:
                    return self._paid_once(body, worst_case, entry)
                except EndpointError as error:
                    met[error.error_code] += 1
                    self._count("faults")
                    if isinstance(error, EndpointUnavailable) and error.retry_after is not None:
                        self._pacer.hold(min(error.retry_after, _LONGEST_HOLD))
                    raise
        raise AssertionError("retry_context ends by returning or raising")

    def _paid_once(self, body: bytes, worst_case: int, entry: CacheEntry) -> ChatAnswer:
        """One try within the budget. A kill at any point leaves at most too much counted as spent."""
        self._pacer.wait()
        reservation = self._budget.reserve(worst_case)
        spent = worst_case
        try:
            answer = self._exchange(body)
            entry.write(answer.as_dict())
            self._count("requests")
            spent = worst_case if answer.tokens is None else answer.tokens
        except EndpointError as error:
            if error.error_code in _UNPAID:
                spent = 0
            raise
        finally:
            self._budget.settle(reservation, spent)
        return answer

    def _exchange(self, body: bytes) -> ChatAnswer:
        """Send a request and read its answer; errors name the endpoint, and never the key."""
        try:
            with self._http.stream("POST", self._spec.completions_url, content=body) as response:
                content = self._received(response)
                answer = read_answer(response.status_code, response.headers, content)
        except EndpointUnavailable as error:
            raise EndpointUnavailable(
                self._told(error.message),
                hint=error.hint,
                code=error.error_code,
                retry_after=error.retry_after,
            ) from None
        except EndpointError as error:
            raise EndpointError(self._told(error.message), hint=error.hint, code=error.error_code) from None
        except http.RequestError as error:
            raise self._broken(error) from None
        return replace(answer, text=self._key.redact(answer.text))

    def _received(self, response: http.Response) -> bytes:
        """The body, within the endpoint's time and a cap on its size."""
        deadline = time.monotonic() + self._spec.timeout
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _LARGEST_ANSWER:
                raise EndpointError(
                    f"its answer has more than {_LARGEST_ANSWER} bytes",
                    hint="check endpoint.url",
                    code="endpoint_too_large",
                )
            if time.monotonic() > deadline:
                raise http.ReadTimeout("the answer trickles")
        return bytes(content)

    def _broken(self, error: http.RequestError) -> EndpointUnavailable:
        if isinstance(error, http.ConnectError | http.ConnectTimeout):
            found = f"it cannot be reached ({type(error).__name__}: {error})"
            return EndpointUnavailable(
                self._told(found), hint="check endpoint.url and the server", code="endpoint_unreachable"
            )
        if isinstance(error, http.TimeoutException):
            found = f"it did not answer within {self._spec.timeout:g} seconds"
            return EndpointUnavailable(
                self._told(found),
                hint="raise endpoint.timeout, or lower endpoint.concurrency",
                code="endpoint_timeout",
            )
        return EndpointUnavailable(
            self._told(f"it broke off in the middle of an answer ({type(error).__name__})"),
            hint="see the server's own log; send the job again when it is well",
            code="endpoint_cut_off",
        )

    def _told(self, found: str) -> str:
        return self._key.redact(f"endpoint {self._spec.url}: {found}")
