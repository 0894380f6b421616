"""JSON arrays and Parquet: the same rows as JSONL, and every hostile file an error with a place."""

from __future__ import annotations

import gzip
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deft_engine.data import json_array
from deft_engine.data.formats import READERS
from deft_engine.data.json_array import JsonArray
from deft_engine.data.limits import ReadLimits
from deft_engine.data.parquet_rows import COLUMNS
from deft_engine.data.upload_file import UploadFile
from deft_engine.errors import DeftError, FormatError
from deft_engine.types import Message, Response
from tests.unit.data.conftest import Importer, imported_or_error

TEXT = 'é"\\ \n[{]},: '
ROWS: dict[str, dict[str, Any]] = {
    "hh_rlhf": {
        "chosen": f"\n\nHuman: {TEXT}\n\nAssistant: good{TEXT}",
        "rejected": f"\n\nHuman: {TEXT}\n\nAssistant: bad",
    },
    "pairwise": {"prompt": TEXT, "chosen": f"good{TEXT}", "rejected": "bad", "score_chosen": 1.5},
    "ranked": {"query": TEXT, "responses": ["bad", f"good{TEXT}"], "scores": [-1.5, 2.0]},
    "pro": {"prefix": [[TEXT]] * 2, "suffix": [f"good{TEXT}", "bad"], "reward": [1.0, 0.5], "sft_index": 0},
    "ultrafeedback": {
        "instruction": TEXT,
        "completions": [
            {"response": "bad", "overall_score": 1.0},
            {"response": f"good{TEXT}", "overall_score": 5.0},
        ],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": TEXT}],
        "chosen": {"from": "gpt", "value": f"good{TEXT}"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
}


def array(rows: list[Any]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def parquet(rows: list[Any], **options: Any) -> bytes:
    buffer = BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def pair(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"q{number}", "chosen": f"good {number}", "rejected": "bad", **fields}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("write", [array, parquet])
@pytest.mark.parametrize("name", READERS)
def test_every_format_reads_the_same_from_every_kind_of_file(
    name: str, write: Any, packed: bool, import_upload: Importer
) -> None:
    rows = [{**ROWS[name], "id": f"i{number}", "subset": f"s{number}", "other": [1]} for number in range(3)]
    lines = import_upload(rows)
    assert lines.summary["format"] == name
    (message,), chosen = lines.samples[0].prompt, lines.samples[0].chosen
    assert (message.content, chosen.text) == (TEXT, f"good{TEXT}")
    result = import_upload(write(rows), packed=packed)
    assert result.samples == lines.samples
    assert result.summary == lines.summary
    assert [(s.id, s.subset, s.line) for s in result.samples] == [
        ("i0", "s0", 1),
        ("i1", "s1", 2),
        ("i2", "s2", 3),
    ]


BAD_ELEMENTS = [
    (b"NaN", "invalid_json"),
    (b"", "invalid_json"),
    (b"[1, 2]", "invalid_json"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    (rb'{"prompt": "\ud800", "chosen": "a", "rejected": "b"}', "lone_surrogate"),
    (b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}', "invalid_utf8"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": NaN}', "invalid_json"),
    (b'{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1e999}', "invalid_score"),
]


@pytest.mark.parametrize(("element", "code"), BAD_ELEMENTS, ids=lambda value: str(value)[:20])
def test_a_bad_element_costs_its_own_row(element: bytes, code: str, import_upload: Importer) -> None:
    good = [json.dumps(pair(number)).encode() for number in range(2)]
    result = import_upload(b"\xef\xbb\xbf [" + good[0] + b"\n,\n" + element + b"," + good[1] + b"]\n ")
    assert result.codes == [(2, code)]
    assert [(sample.id, sample.line) for sample in result.samples] == [("row-1", 1), ("row-3", 3)]


def test_an_element_beyond_the_cap_is_skipped_whole(
    import_upload: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_MAX_LINE_BYTES", "200")
    rows = [pair(1), pair(2, note='x"\\' * 1_500_000), pair(3)]
    for content in (array(rows), parquet([pair(1), {**pair(2), "chosen": "x" * 3_000_000}, pair(3)])):
        result = import_upload(content)
        assert result.codes == [(2, "line_too_long")]
        assert [sample.line for sample in result.samples] == [1, 3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[", "row 1: the JSON array breaks off"),
        (array([pair(1), pair(2)])[:-4], "row 2: the JSON array breaks off"),
        (array([pair(1)])[:-1] + b"}", "row 1: the array ends with }"),
        (array([pair(1)]) + b"{}", "row 1: text follows the array's end"),
        (b"[]", "no rows"),
        (b"[ \n]", "no rows"),
        (b"[[1], 2]", "row 1: no known format: holds a list"),
        (b'[{"a": 1}]', 'row 1: no known format: its fields are "a"'),
        (array([{"prompt": "q", "responses": ["a"]}]), 'row 1: "responses" has 1 entry'),
        (b"PAR1", "the footer: the Parquet file is damaged"),
        (b"PAR1" + b"\x00" * 50 + b"PAR1", "the footer: the Parquet file is damaged"),
        (parquet([{"a": 1}]), 'row 1: no known format: the columns are "a"'),
        (parquet(pa.table({"prompt": pa.array([], pa.string())})), "no rows"),
        (parquet([{"prompt": "q"}]), 'row 1: no known format: its fields are "prompt"'),
        (
            parquet(pa.Table.from_arrays([pa.array(["q"]), pa.array(["r"])], names=["prompt", "prompt"])),
            'two columns "prompt"',
        ),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "gzipped twice"),
        (gzip.compress(parquet([pair(1)] * 9), mtime=0)[:-20], "the gzip file is truncated"),
    ],
)
def test_files_that_cannot_be_read(content: bytes, words: str, import_upload: Importer) -> None:
    with pytest.raises(DeftError) as caught:
        import_upload(content)
    assert words in caught.value.message
    assert caught.value.hint


def test_scores_and_text_of_a_parquet_row_that_no_format_can_use(import_upload: Importer) -> None:
    strings = pa.array([b"q", b"q\xff", b"q", b"q"], pa.binary()).view(pa.string())
    table = pa.table(
        {
            "prompt": strings,
            "chosen": ["a"] * 4,
            "rejected": ["b"] * 4,
            "score_chosen": [math.nan, 1.0, math.inf, 2.0],
            "id": ["w", "x", "y", None],
        }
    )
    result = import_upload(parquet(table))
    assert result.codes == [(1, "invalid_score"), (2, "invalid_utf8"), (3, "invalid_score")]
    assert [(sample.id, sample.chosen.reward) for sample in result.samples] == [("row-4", 2.0)]
    binary = pa.table({"prompt": [b"q"], "chosen": ["a"], "rejected": ["b"]})
    with pytest.raises(DeftError, match='row 1: "prompt" is binary data; write a string'):
        import_upload(parquet(binary))


def test_a_parquet_bomb_is_refused(import_upload: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = parquet([pair(1, rejected="x" * 1_000_000)] * 300, compression="zstd")
    with pytest.raises(FormatError, match="times its size"):
        import_upload(bomb)
    monkeypatch.setenv("DEFT_MAX_UNPACKED_BYTES", "1000000")
    with pytest.raises(FormatError, match="unpacks to more than 1000000 bytes"):
        import_upload(bomb)


PARQUET = parquet([pair(number, id=f"i{number}") for number in range(50)], row_group_size=20)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(4, len(PARQUET) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_parquet_file_that_lies_is_an_error_or_read_to_its_end(
    place: int, value: int, cut: bool, import_upload: Importer
) -> None:
    damaged = bytearray(PARQUET)
    damaged[place] = value
    content = bytes(damaged[:place] + damaged[place + 1 :] if cut else damaged)
    result = imported_or_error(import_upload, content, "pairwise")
    if isinstance(result, DeftError):
        assert result.message.startswith(("row ", "the footer: ", "the file has ", "the upload "))
        return
    assert result.summary["rows"] == len(result.samples) + len(result.ledger)


def test_a_footer_that_claims_more_rows_than_there_are(
    import_upload: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying(pq.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, **options: Any) -> Any:
            yield next(super().iter_batches(**options)).slice(0, 30)

    monkeypatch.setattr(pq, "ParquetFile", Lying)
    with pytest.raises(FormatError, match="row 30: the file ends here, but its footer tells of 50 rows"):
        import_upload(parquet([pair(number) for number in range(50)]), format="pairwise")


def test_every_field_that_a_reader_reads_is_a_column_that_is_read() -> None:
    assert {field for row in ROWS.values() for field in row} | {
        "id",
        "subset",
        "messages",
        "system",
    } <= COLUMNS


json_value = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\[]{},: é', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('k"\\]}', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), json_value, max_size=3), max_size=5),
    block=st.integers(1, 40),
    indent=st.none() | st.just(1),
)
def test_elements_are_cut_wherever_blocks_end(
    rows: list[Any], block: int, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "upload"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False))
    with pytest.MonkeyPatch.context() as patch, UploadFile(path, ReadLimits()) as upload:
        patch.setattr(json_array, "_BLOCK", block)
        read = list(JsonArray(upload))
    assert [row.content for row in read] == rows
    assert [row.number for row in read] == list(range(1, len(rows) + 1))


def test_real_sharegpt_pairs(shared_data: Path, import_upload: Importer) -> None:
    packed = (shared_data / "llamafactory-demo" / "dpo_en_demo.json.gz").read_bytes()
    result = import_upload(packed)
    rows = json.loads(gzip.decompress(packed))
    assert (result.summary["format"], result.summary["rows"]) == ("sharegpt", len(rows))
    assert len(result.samples) + len(result.ledger) == len(rows) == 300
    by_line = {sample.line: sample for sample in result.samples}
    assert len(by_line) > 250
    for line, sample in by_line.items():
        row = rows[line - 1]
        assert [message.content for message in sample.prompt] == [t["value"] for t in row["conversations"]]
        assert [r.text for r in sample.responses] == [row["chosen"]["value"], row["rejected"]["value"]]


@pytest.mark.parametrize(
    ("file", "lengths"),
    [
        ("alpaca-eval-ranked/ranked.train.jsonl.gz", range(2, 26)),
        ("oasst-100-trees/ranked_nodes.jsonl.gz", range(2, 10)),
        ("rmb-benchmark/ranked_partial.train.jsonl.gz", range(2, 13)),
    ],
)
def test_real_lists_as_jsonl_array_and_parquet(
    file: str, lengths: range, shared_data: Path, import_upload: Importer
) -> None:
    lines = gzip.decompress((shared_data / file).read_bytes()).splitlines()[:200]
    rows = [json.loads(line) for line in lines]
    results = [import_upload(b"\n".join(lines)), import_upload(array(rows)), import_upload(parquet(rows))]
    assert results[0].samples == results[1].samples == results[2].samples
    assert results[0].summary["format"] == "ranked"
    assert {len(sample.responses) for sample in results[0].samples} <= set(lengths)
    assert len(results[0].samples) > 100


def test_real_lists_as_ultrafeedback(shared_data: Path, import_upload: Importer) -> None:
    packed = (shared_data / "alpaca-eval-ranked" / "ranked.train.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()[:50]]
    written = [
        {
            "instruction": row["prompt"],
            "completions": [
                {"response": entry["text"], "overall_score": entry["logit"]}
                for entry in reversed(row["responses"])
            ],
        }
        for row in rows
    ]
    result = import_upload(parquet(written))
    assert result.summary["format"] == "ultrafeedback"
    for sample in result.samples:
        scored = [response.reward for response in sample.responses]
        assert scored == sorted((e["logit"] for e in rows[sample.line - 1]["responses"]), reverse=True)
    assert result.samples[0].prompt == (Message("user", rows[0]["prompt"]),)
    assert isinstance(result.samples[0].chosen, Response)
