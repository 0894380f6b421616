import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deft_engine.endpoints.chat import ChatAnswer, ChatRequest, read_answer
from deft_engine.errors import EndpointError, EndpointUnavailable
from deft_engine.types import Message


def _choice(content: Any, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, **more}]}).encode()


def _error(status: int, content: bytes, **headers: str) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        read_answer(status, headers, content)
    return caught.value


def test_a_completion_is_read() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    content = json.dumps(
        {"choices": [{"message": {"content": " Hi\n"}, "finish_reason": "length"}], "usage": usage}
    ).encode()
    assert read_answer(200, {}, content) == ChatAnswer(" Hi\n", tokens=12, completion_tokens=7, cut=True)
    assert read_answer(200, {}, _choice(None)).text == ""
    assert read_answer(200, {}, rb'{"choices": [{"message": {"content": "a\ud800b"}}]}').text == "a\ufffdb"


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (301, b"", "endpoint_redirect"),
        (307, b"", "endpoint_redirect"),
        (401, b"", "endpoint_unauthorised"),
        (403, b"", "endpoint_unauthorised"),
        (404, b"<html>no</html>", "endpoint_refused"),
        (400, b'{"error": {"message": "no such model"}}', "endpoint_refused"),
        (429, b'{"error": {"code": "insufficient_quota", "message": "pay"}}', "endpoint_refused"),
        (429, b'{"error": {"code": "rate_limit_exceeded"}}', "endpoint_rate_limited"),
        (408, b"", "endpoint_server_error"),
        (502, b"<html>", "endpoint_server_error"),
        (200, b" <!DOCTYPE html>", "endpoint_html"),
        (200, b"", "endpoint_invalid_json"),
        (200, b"[" * 100_000, "endpoint_invalid_json"),
        (200, b"{}", "endpoint_invalid_json"),
        (200, b"[]", "endpoint_invalid_json"),
        (200, b'{"choices": []}', "endpoint_invalid_json"),
        (200, b'{"error": "overloaded"}', "endpoint_invalid_json"),
        (200, _choice(["parts"]), "endpoint_invalid_json"),
    ],
)
def test_what_is_no_answer_is_told_apart(status: int, content: bytes, code: str) -> None:
    assert _error(status, content).error_code == code


@given(st.binary(max_size=60), st.sampled_from([200, 400, 429, 500]))
def test_any_bytes_are_an_answer_or_an_endpoint_error(content: bytes, status: int) -> None:
    told: EndpointError | None = None
    try:
        read_answer(status, {}, content)
    except EndpointError as error:
        told = error
    assert told is None or (told.hint and told.message.encode())  # no half of a surrogate pair


def test_the_server_s_own_words_are_quoted_in_short_and_pages_are_not() -> None:
    assert "no such model" in _error(400, b'{"error": {"message": "no such\\nmodel"}}').message
    assert len(_error(400, b"x" * 5000).message) < 500
    assert "<" not in _error(502, b"<html>secret</html>").message


def test_retry_after_is_seconds_or_a_date() -> None:
    def wait(value: str) -> float | None:
        error = _error(429, b"", **{"retry-after": value})
        assert isinstance(error, EndpointUnavailable)
        return error.retry_after

    assert wait("7") == 7.0
    later = wait(format_datetime(datetime.now(UTC) + timedelta(seconds=100)))
    assert later is not None
    assert 90 < later <= 100
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert wait("soon") is None
    assert wait("") is None


@given(st.text(max_size=200), st.integers(1, 500))
def test_the_worst_case_holds_for_a_tokenizer_of_bytes(text: str, max_tokens: int) -> None:
    request = ChatRequest((Message("user", text), Message("assistant", "x")), max_tokens, 0.0)
    assert request.worst_case >= len(text.encode()) + 1 + max_tokens
