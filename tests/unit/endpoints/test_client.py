import json
import socket
import threading
import time
from pathlib import Path

import pytest

from deft_engine.endpoints.chat import ChatRequest
from deft_engine.endpoints.client import TRIES
from deft_engine.endpoints.pacing import Pacer
from deft_engine.errors import BudgetExhausted, EndpointError, EndpointUnavailable, Interrupted
from deft_engine.run import StopRequest
from deft_engine.types import Message
from tests.chat_server import FAULTS, Body, serving
from tests.unit.endpoints.conftest import Opened

CODES = {
    "429": "endpoint_rate_limited",
    "500": "endpoint_server_error",
    "cut": "endpoint_cut_off",
    "slow": "endpoint_timeout",
    "json": "endpoint_invalid_json",
    "html": "endpoint_html",
}


def request(text: str = "one two three", **fields: int) -> ChatRequest:
    return ChatRequest((Message("user", text),), fields.pop("max_tokens", 8), 0.0, **fields)


def test_a_request_is_what_the_protocol_says(opened: Opened) -> None:
    with serving() as server, opened(server, key="sk-a-long-secret") as client:
        answer = client.ask(request(seed=3))
        client.ask(request(text="other"))
    assert server.bodies[0] == {
        "model": "played",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 8,
        "temperature": 0.0,
        "stream": False,
        "seed": 3,
    }
    assert "seed" not in server.bodies[1]
    assert server.seen_headers[0]["Authorization"] == "Bearer sk-a-long-secret"
    assert server.seen_headers[0]["Host"] == server.url.split("/")[2]
    assert (answer.text, answer.tokens, answer.completion_tokens) == ("answer to one two three", 8, 5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_survived_once_and_told_for_what_it_is_when_it_stays(fault: str, opened: Opened) -> None:
    with serving(fault=lambda number: fault if number == 1 else None) as server:
        with opened(server, timeout=1.0 if fault == "slow" else 30.0) as client:
            assert client.ask(request()).text == "answer to one two three"
        assert len(server.bodies) == 2
    tries = TRIES[CODES[fault]]
    patience = 0.05 if fault == "slow" else 30.0
    with serving(fault=lambda number: fault) as server, opened(server, timeout=patience) as client:
        with pytest.raises(EndpointError) as caught:
            client.ask(request("something else"))
        assert caught.value.error_code == CODES[fault]
        assert isinstance(caught.value, EndpointUnavailable) == (fault not in ("json", "html"))
        assert server.url in caught.value.message
        assert caught.value.hint
        assert len(server.bodies) == tries


def test_a_server_that_is_not_there_is_unreachable(opened: Opened) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with opened(f"http://127.0.0.1:{port}") as client, pytest.raises(EndpointUnavailable) as caught:
        client.ask(request())
    assert caught.value.error_code == "endpoint_unreachable"


def test_retry_after_holds_every_request(opened: Opened) -> None:
    with serving(fault=lambda n: "429" if n == 1 else None, headers={"Retry-After": "1"}) as server:
        with opened(server) as client:
            started = time.monotonic()
            client.ask(request())
        assert time.monotonic() - started >= 1.0


def test_starts_are_spaced_and_a_hold_moves_all_of_them() -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pacer = Pacer(30, threading.Event(), clock=lambda: now[0], sleep=sleep)
    starts = []
    for number in range(4):
        if number == 3:
            pacer.hold(10.0)
        pacer.wait()
        starts.append(now[0])
    assert starts == [100.0, 102.0, 104.0, 114.0]


def test_equal_requests_are_paid_for_once_by_threads_and_by_later_clients(opened: Opened) -> None:
    with serving() as server:
        with opened(server) as client:
            answers = dict(client.answers([request("same")] * 6 + [request("other")]))
            assert client.usage == {"tokens": server.tokens, "requests": 2, "kept": 5, "faults": 0}
        assert {answers[n].text for n in range(6)} == {"answer to same"}
        with opened(server) as again:
            assert again.ask(request("other")).text == "answer to other"
        assert sorted(server.answered.values()) == [1, 1]
        with opened(server) as again:
            again.ask(request("other", max_tokens=9))  # another request
        assert len(server.bodies) == 3


@pytest.mark.parametrize(("missing", "paid"), [(0, 4), (1, 3)])
def test_the_budget_holds_to_the_token(missing: int, paid: int, opened: Opened) -> None:
    worst, actual = request("q 0").worst_case, 2 + 4
    budget = 3 * actual + worst - missing
    with serving() as server, opened(server, token_budget=budget, concurrency=1) as client:
        with pytest.raises(BudgetExhausted) as caught:
            list(client.answers([request(f"q {number}") for number in range(9)]))
        assert len(server.bodies) == paid
        assert server.tokens == client.usage["tokens"] == paid * actual <= budget
    assert f"budget of {budget} has {paid * actual} spent" in caught.value.message


def test_many_threads_stay_within_the_budget(opened: Opened) -> None:
    def usage(body: Body, text: str) -> Body:
        return {"prompt_tokens": 60, "completion_tokens": 20}

    with serving(usage=usage) as server, opened(server, token_budget=1000, concurrency=16) as client:
        with pytest.raises(BudgetExhausted):
            list(client.answers([request(f"q {number}") for number in range(99)]))
        assert server.tokens == client.usage["tokens"] <= 1000
        assert 1000 - server.tokens < request("q 99").worst_case


def test_what_was_under_way_when_killed_counts_as_spent(tmp_path: Path, opened: Opened) -> None:
    lines = [{"id": 1, "held": 50}, {"id": 2, "held": 70}, {"id": 1, "spent": 20}]
    ledger = "".join(json.dumps(line) + "\n" for line in lines) + '{"id": 2, "spe'
    (tmp_path / "spending.jsonl").write_text(ledger)
    with serving() as server:
        with opened(server) as client:
            assert client.usage["tokens"] == 90
            client.ask(request())
        with opened(server) as client:
            assert client.usage["tokens"] == 90 + 8


@pytest.mark.parametrize(("fault", "paid"), [("500", False), ("429", False), ("cut", True), ("json", True)])
def test_a_try_without_an_answer_counts_in_full_where_it_may_have_been_paid(
    fault: str, paid: bool, opened: Opened
) -> None:
    with serving(fault=lambda number: fault if number == 1 else None) as server, opened(server) as client:
        client.ask(request())
        assert client.usage["tokens"] == 8 + (request().worst_case if paid else 0)


def test_a_server_that_counts_no_tokens_is_taken_at_the_worst_case(opened: Opened) -> None:
    with serving(usage=lambda body, text: None) as server, opened(server) as client:
        assert client.ask(request()).tokens is None
        assert client.usage["tokens"] == request().worst_case


def test_a_stop_ends_the_waiting_and_keeps_what_is_under_way(opened: Opened) -> None:
    stop, arrived = StopRequest(), threading.Event()

    def slow_first(number: int) -> str | None:
        arrived.set()
        return "slow" if number == 1 else None

    with serving(fault=slow_first) as server:

        def interrupt() -> None:
            arrived.wait(10)
            stop.set()
            server.released.set()

        thread = threading.Thread(target=interrupt)
        thread.start()
        slow = opened(server, stop=stop, concurrency=1, requests_per_minute=1)
        with slow as client, pytest.raises(Interrupted):
            list(client.answers([request("a"), request("b"), request("c")]))
        thread.join()
        with opened(server) as client:
            client.ask(request("a"))
        assert len(server.bodies) == 1
