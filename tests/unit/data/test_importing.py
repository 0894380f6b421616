"""The import stage: every row is a sample or in the ledger, and bad files are errors with a place."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deft_engine.data.formats import READERS
from deft_engine.data.samples import read_index, read_samples, write_samples
from deft_engine.errors import DataError, DeftError, FormatError, Interrupted
from deft_engine.run import StopRequest
from deft_engine.types import Message, Response, Sample
from tests.unit.data.conftest import Importer, imported_or_error, jsonl


def pair(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}", "chosen": f"good {number}", "rejected": f"bad {number}", **fields}


def test_a_broken_line_41_is_in_the_ledger_and_the_rest_is_used(import_upload: Importer) -> None:
    lines = jsonl([pair(number) for number in range(60)]).splitlines()
    lines[40] = lines[40][:-1]
    result = import_upload(b"\n".join(lines))
    assert result.codes == [(41, "invalid_json")]
    assert "one JSON object a line" in result.ledger[0]["detail"]
    assert result.summary["rows"] == 60
    assert result.summary["samples"] == len(result.samples) == 59
    assert [sample.line for sample in result.samples] == [n for n in range(1, 61) if n != 41]


def test_a_dataset_with_one_response_says_so_and_where(import_upload: Importer) -> None:
    with pytest.raises(DataError) as caught:
        import_upload([{"prompt": "q", "responses": ["only"]}] * 3)
    assert caught.value.message == 'line 1: "responses" has 1 entry; ranking needs at least 2'
    assert "none of the 3 rows" in caught.value.hint
    assert caught.value.error_code == "too_few_responses"


BAD_LINES: list[tuple[bytes, str]] = [
    (b"{", "invalid_json"),
    (b'{"prompt": "q", "chosen": NaN, "rejected": "b"}', "invalid_json"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b"} {}', "invalid_json"),
    (b'"text"', "invalid_json"),
    (b"[1]", "invalid_json"),
    (b"null", "invalid_json"),
    (b"\x00\x00", "invalid_json"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    (b'{"prompt": "q", "chosen": "\xff", "rejected": "b"}', "invalid_utf8"),
    (rb'{"prompt": "q", "chosen": "\ud800", "rejected": "b"}', "lone_surrogate"),
    (rb'{"prompt": "q", "chosen": "\udc00 and more text", "rejected": "b"}', "lone_surrogate"),
    (rb'{"prompt": "q", "chosen": "\u0000", "rejected": "b"}', "nul_character"),
    (rb'{"prompt": "q", "chosen": "a", "rejected": "b", "id": "\u0000"}', "nul_character"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1e999}', "invalid_score"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1e308}', "invalid_score"),
    (b'{"prompt": "q", "chosen": "a"}', "missing_field"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "a"}', "identical_responses"),
    (b'{"prompt": "q", "chosen": "a", "rejected": " \\n"}', "empty_response"),
    (b'{"prompt": " ", "chosen": "a", "rejected": "b"}', "empty_prompt"),
    (b'{"prompt": [], "chosen": "a", "rejected": "b"}', "empty_prompt"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "id": []}', "wrong_type"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "subset": ""}', "wrong_type"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "id": "first"}', "duplicate_id"),
]


@pytest.mark.parametrize(
    "index", range(len(BAD_LINES)), ids=[f"{i}-{code}" for i, (_, code) in enumerate(BAD_LINES)]
)
def test_a_bad_line_between_good_ones(index: int, import_upload: Importer) -> None:
    line, code = BAD_LINES[index]
    result = import_upload(jsonl([pair(1, id="first")]) + line + b"\n" + jsonl([pair(2)]))
    assert result.codes == [(2, code)]
    assert len(result.ledger[0]["detail"]) > 10
    assert [sample.id for sample in result.samples] == ["first", "line-3"]


def test_marks_line_ends_and_blank_lines_do_not_matter(import_upload: Importer) -> None:
    rows = [json.dumps(pair(number)) for number in range(3)]
    text = "\ufeff" + rows[0] + "\r\n\r\n  \r\n" + rows[1] + "\r\n" + rows[2]
    result = import_upload(text.encode())
    assert [sample.line for sample in result.samples] == [1, 4, 5]
    assert result.summary["rows"] == 3


def test_a_repeated_key_counts_once_with_its_last_value(import_upload: Importer) -> None:
    result = import_upload(b'{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}')
    assert result.samples[0].prompt == (Message("user", "q"),)


def test_gzip_reads_as_plain_and_equal_uploads_give_equal_bytes(import_upload: Importer) -> None:
    rows = [pair(number, subset="s" if number % 2 else "t", id=number) for number in range(4_500)]
    plain, packed = import_upload(rows), import_upload(rows, packed=True)
    assert plain.samples == packed.samples
    first, second = (run.folder / "samples.parquet" for run in (plain, packed))
    assert first.read_bytes() == second.read_bytes()
    assert plain.summary == {
        "format": "pairwise",
        "rows": 4500,
        "samples": 4500,
        "rejected": 0,
        "responses_per_sample": {"2": 4500},
        "subsets": {"s": 2250, "t": 2250},
        "scored": 0,
        "mean_prompt_chars": pytest.approx(9 + 3.75, abs=0.1),
        "mean_response_chars": pytest.approx(4.5 + 3.75, abs=0.1),
    }


def test_ids_subsets_and_scores_of_the_file_are_kept(import_upload: Importer) -> None:
    result = import_upload([pair(1, id=7, subset="x", score_chosen=1, score_rejected=0), pair(2)], subset="y")
    assert [(sample.id, sample.subset) for sample in result.samples] == [("7", "x"), ("line-2", "y")]
    assert result.summary["scored"] == 1


def test_a_line_beyond_the_cap_is_skipped_whole(
    import_upload: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_MAX_LINE_BYTES", "200")
    result = import_upload([pair(1), pair(2, note="x" * 5_000_000), pair(3)])
    assert result.codes == [(2, "line_too_long")]
    assert [sample.line for sample in result.samples] == [1, 3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no rows"),
        (b"\n \r\n", "no rows"),
        (b"PK\x03\x04", "line 1: the file is a zip archive"),
        ("{}".encode("utf-16"), "line 1: the file is UTF-16"),
        (
            b'{"instruction": "q", "output": "a"}',
            'line 1: no known format: its fields are "instruction", "output"',
        ),
        (b"prompt,chosen\nq,a", "line 1: no known format: JSON is malformed"),
        (gzip.compress(b"", mtime=0), "no rows"),
    ],
)
def test_files_of_no_known_format(content: bytes, words: str, import_upload: Importer) -> None:
    with pytest.raises(FormatError) as caught:
        import_upload(content)
    assert words in str(caught.value)


def test_a_truncated_or_damaged_gzip_file_names_the_line(import_upload: Importer) -> None:
    packed = gzip.compress(jsonl([pair(number) for number in range(20_000)]))
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 0xFF
    checksum = bytearray(packed)
    checksum[-6] ^= 0xFF
    for content in (packed[: len(packed) // 2], bytes(damaged), bytes(checksum)):
        with pytest.raises(DeftError, match=r"line \d+: ") as caught:
            import_upload(content)
        assert isinstance(caught.value, FormatError)
        assert "upload it again" in caught.value.hint


def test_a_gzip_bomb_is_refused(import_upload: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 2**20) for _ in range(100)) + packer.flush()
    with pytest.raises(FormatError, match="times its size"):
        import_upload(bomb)
    monkeypatch.setenv("DEFT_MAX_UNPACKED_BYTES", "1000000")
    with pytest.raises(FormatError, match="unpacks to more than 1000000 bytes"):
        import_upload(bomb)


def test_a_named_format_is_not_told_from_the_fields(import_upload: Importer) -> None:
    with pytest.raises(DataError, match='line 1: has no "responses"'):
        import_upload([pair(1)], format="ranked")


def test_it_reports_and_stops_between_rows(import_upload: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(number) for number in range(10_000)]
    progress = [event for event in import_upload(rows).events if event["type"] == "progress"]
    assert progress[-1]["step"] == progress[-1]["total"] == len(jsonl(rows))
    assert [event["step"] for event in progress] == sorted(event["step"] for event in progress)
    monkeypatch.setattr(StopRequest, "__init__", lambda self: setattr(self, "_event", _AlreadySet()))
    with pytest.raises(Interrupted):
        import_upload(rows)


class _AlreadySet:
    def is_set(self) -> bool:
        return True


def test_samples_are_read_from_any_position(tmp_path: Path) -> None:
    samples = [
        Sample(
            f"s{n}",
            f"t{n % 3}",
            (Message("system", ""), Message("user", f"é\n {n}")),
            tuple(Response(f"r{k}", None if k % 2 else k / 3) for k in range(2 + n % 3)),
            n,
        )
        for n in range(4_100)
    ]
    path = tmp_path / "samples.parquet"
    write_samples(path, samples)
    assert list(read_samples(path)) == samples
    for start in (0, 1_999, 2_000, 4_099, 4_100):
        assert list(read_samples(path, start)) == samples[start:]
    index = read_index(path)
    assert index.ids == [sample.id for sample in samples]
    assert index.subsets == [sample.subset for sample in samples]
    lengths = [b - a for a, b in zip(index.offsets[:-1], index.offsets[1:], strict=True)]
    assert lengths == [len(sample.responses) for sample in samples]


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
any_row = st.fixed_dictionaries(
    {},
    optional={
        name: json_value | st.text(min_size=1, max_size=5) | st.lists(st.text(max_size=3), max_size=3)
        for name in (
            "id",
            "subset",
            "prompt",
            "query",
            "chosen",
            "rejected",
            "responses",
            "scores",
            "score_chosen",
            "prefix",
            "suffix",
            "reward",
            "sft_index",
            "instruction",
            "completions",
            "conversations",
        )
    },
)
any_line = (
    st.binary(max_size=40)
    | json_value.map(json.dumps).map(str.encode)
    | any_row.map(lambda row: json.dumps(row).encode())
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(any_line, max_size=8), named=st.sampled_from(["auto", *READERS]))
def test_whatever_is_uploaded_every_row_is_accounted_for(
    lines: list[bytes], named: str, import_upload: Importer
) -> None:
    result = imported_or_error(import_upload, b"\n".join(lines), named)
    if isinstance(result, DeftError):
        assert result.message.startswith(("line ", "row ", "the file has no rows"))
        return
    assert result.summary["rows"] == len(result.samples) + len(result.ledger)
    places = sorted([sample.line for sample in result.samples] + [entry["line"] for entry in result.ledger])
    assert places == sorted(set(places))
    assert all(len(sample.responses) >= 2 for sample in result.samples)


def test_the_examples_of_the_documentation_are_read_as_it_says(import_upload: Importer) -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    examples = page.split("```json\n")[1].split("```")[0].splitlines()
    results = [import_upload(line.encode()) for line in examples]
    assert [result.summary["format"] for result in results] == [
        *("hh_rlhf", "pairwise", "pairwise", "ranked", "ranked"),
        *("pro", "ultrafeedback", "sharegpt"),
    ]
    for result in results:
        (sample,) = result.samples
        assert sample.prompt == (Message("user", "Hi"),)
        assert (sample.chosen.text, sample.rejected.text) == ("Hello!", "No.")
    codes = {code for _, code in BAD_LINES} | {
        "line_too_long",
        "too_few_responses",
        "no_shared_prompt",
        "unparseable_transcript",
    }
    assert all(f"`{code}`" in page for code in codes)
