import json
import math
from pathlib import Path

import pytest

from deft_engine.events import EventWriter, decode_number, encode_number, read_events


def _events(path: Path) -> list[dict[str, object]]:
    return [event for _, event in read_events(path, 0)]


def test_events_carry_what_they_were_given_in_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.progress(1, None)
        events.metrics(2, {"loss": 0.5})
        events.log("naïve — 数\nline", level="warning")
        events.error({"code": "c", "message": "m", "hint": "h", "retryable": False})
    found = _events(path)
    assert [event["seq"] for event in found] == [1, 2, 3, 4]
    assert [event["type"] for event in found] == ["progress", "metrics", "log", "error"]
    assert (found[0]["step"], found[0]["total"]) == (1, None)
    assert (found[1]["step"], found[1]["values"]) == (2, {"loss": 0.5})
    assert (found[2]["level"], found[2]["message"]) == ("warning", "naïve — 数\nline")
    assert (found[3]["code"], found[3]["retryable"]) == ("c", False)


def test_a_name_that_is_no_utf8_can_be_told_of(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.log("cannot read models/caf\udce9")
    assert _events(path)[0]["message"] == "cannot read models/caf\udce9"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1, -3.0])
def test_numbers_survive_json(value: float, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.metrics(1, {"x": value})
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (event,) = _events(path)
    values = event["values"]
    assert isinstance(values, dict)
    read = decode_number(values["x"])
    assert read == value or (math.isnan(read) and math.isnan(value))
    assert encode_number(read) == values["x"]


def test_reading_goes_on_from_an_offset_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.progress(1, 3)
        events.progress(2, 3)
        (first, _), (second, _) = read_events(path, 0)
        events.progress(3, 3)
        ((third, event),) = read_events(path, second)
        assert event["step"] == 3
    assert [e["step"] for _, e in read_events(path, first)] == [2, 3]
    with path.open("ab") as file:
        file.write(b'{"seq": 4, "unfin')
    assert list(read_events(path, third)) == []


def test_a_writer_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.log("one")
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "killed here')
    with EventWriter(path) as events:
        events.log("two")
    assert [(event["seq"], event["message"]) for event in _events(path)] == [(1, "one"), (2, "two")]


def test_each_event_is_on_disk_when_its_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.log("now")
        assert path.read_bytes().endswith(b"\n")


def test_no_half_line_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as events:
        events.log("one")
        file = events._file

        class Full:
            name = str(path)

            def write(self, data: bytes) -> int:
                return file.write(data[:10])

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

        with monkeypatch.context() as patch:
            patch.setattr(events, "_file", Full())
            with pytest.raises(OSError, match="No space left"):
                events.log("lost")
        events.log("there is space again")
    assert [event["message"] for event in _events(path)] == ["one", "there is space again"]
