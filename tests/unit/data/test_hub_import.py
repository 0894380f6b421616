"""Data sets of the hub through a real server that plays its protocol, and its faults."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina

from deft_engine.data import importing
from deft_engine.data.hub_dataset import HubDataset
from deft_engine.data.hub_files import split_files
from deft_engine.data.samples import read_samples
from deft_engine.errors import DataError, DeftError, EndpointError, EndpointUnavailable
from deft_engine.events import EventWriter
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import ImportSpec
from deft_engine.types import Sample
from tests.hub_server import COMMIT, Hub, playing_hub
from tests.unit.data.conftest import jsonl

HH = "Anthropic/hh-rlhf"
Imported = tuple[dict[str, Any], list[Sample]]
Import = Callable[..., Imported]


def pairs(topic: str, count: int) -> list[dict[str, str]]:
    return [
        {"chosen": f"\n\nHuman: {topic} {n}?\n\nAssistant: yes {n}",
         "rejected": f"\n\nHuman: {topic} {n}?\n\nAssistant: no {n}"}
        for n in range(count)
    ]  # fmt: skip


def parquet(rows: list[dict[str, Any]]) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), made)
    return made.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one data set in HH's layout, the only host that is allowed."""
    with playing_hub() as playing, stamina.set_testing(True, attempts=4, cap=True):
        monkeypatch.setenv("HF_ENDPOINT", playing.url)
        monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", playing.url.removeprefix("http://"))
        playing.repositories[HH] = {
            "README.md": b"# hh",
            "harmless-base/train.jsonl.gz": gzip.compress(jsonl(pairs("harm", 3))),
            "harmless-base/test.jsonl.gz": gzip.compress(jsonl(pairs("harm test", 2))),
            "helpful-base/train.jsonl.gz": gzip.compress(jsonl(pairs("help", 4)) + b"{broken\n"),
            "helpful-base/test.jsonl.gz": gzip.compress(jsonl(pairs("help test", 1))),
        }
        yield playing


@pytest.fixture
def import_from_hub(tmp_path: Path) -> Import:
    def run(**asked: Any) -> Imported:
        wanted = HubDataset(**{"hub": HH, "split": "train", **asked})
        for name in ("out", "work"):
            (tmp_path / name).mkdir(exist_ok=True)
        with EventWriter(tmp_path / "events") as events:
            context = StageContext(
                ImportSpec(),
                {"upload": wanted.uri},
                tmp_path / "out",
                tmp_path / "work",
                events,
                StopRequest(),
            )
            summary = importing.run(context)
        return summary, list(read_samples(tmp_path / "out" / "samples.parquet"))

    return run


def ledger(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "ledger.jsonl").read_bytes().splitlines()]


def test_a_split_is_read_over_all_folders_which_name_the_subsets(
    hub: Hub, import_from_hub: Import, tmp_path: Path
) -> None:
    summary, samples = import_from_hub()
    assert (summary["format"], summary["rows"], summary["samples"], summary["rejected"]) == (
        "hh_rlhf",
        8,
        7,
        1,
    )
    assert summary["subsets"] == {"harmless-base": 3, "helpful-base": 4}
    assert summary["hub"] == {
        "commit": COMMIT,
        "files": ["harmless-base/train.jsonl.gz", "helpful-base/train.jsonl.gz"],
    }
    assert samples[0].id == "harmless-base/train.jsonl.gz:1"
    assert samples[0].chosen.text == "yes 0"
    assert [sample.line for sample in samples] == list(range(1, 8))
    (broken,) = ledger(tmp_path)
    assert (broken["line"], broken["code"]) == (8, "invalid_json")
    assert broken["detail"].startswith("helpful-base/train.jsonl.gz line 5: ")
    assert not any("test" in path or "README" in path for _, path in hub.requests)


def test_a_folder_a_revision_and_a_limit_are_respected(hub: Hub, import_from_hub: Import) -> None:
    summary, samples = import_from_hub(data_dir="helpful-base", revision="v1", limit=2)
    assert [sample.prompt[0].content for sample in samples] == ["help 0?", "help 1?"]
    assert summary["rows"] == 2
    assert ("GET", f"/api/datasets/{HH}/revision/v1") in hub.requests


def test_parquet_shards_are_read_in_order(hub: Hub, import_from_hub: Import) -> None:
    rows = [{"id": f"r{n}", "prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(5)]
    hub.repositories["org/set"] = {
        "data/train_prefs-00001-of-00002.parquet": parquet(rows[3:]),
        "data/train_prefs-00000-of-00002.parquet": parquet(rows[:3]),
        "data/train-00000-of-00001.parquet": parquet(rows),
    }
    summary, samples = import_from_hub(hub="org/set", split="train_prefs")
    assert [sample.id for sample in samples] == ["r0", "r1", "r2", "r3", "r4"]
    assert summary["subsets"] == {"default": 5}


@pytest.mark.parametrize("faults", [["500"], ["429", "500"], ["cut"]])
def test_passing_faults_change_nothing(hub: Hub, import_from_hub: Import, faults: list[str]) -> None:
    hub.faults = faults
    assert import_from_hub()[0]["samples"] == 7
    assert hub.faults == []


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"hub": "no/such"}, "unknown_hub_dataset", "cannot be read from the hub"),
        ({"revision": "v9"}, "unknown_revision", "no revision 'v9'"),
        ({"data_dir": "nowhere"}, "unknown_data_dir", "no folder 'nowhere'"),
        ({"split": "dev"}, "unknown_split", "no file of the split 'dev'"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_so(
    hub: Hub, import_from_hub: Import, asked: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        import_from_hub(**asked)
    assert caught.value.error_code == code
    assert caught.value.hint


@pytest.mark.parametrize("fault", ["500", "html"])
def test_a_hub_that_stays_broken_is_unavailable(hub: Hub, import_from_hub: Import, fault: str) -> None:
    hub.faults = [fault] * 60
    with pytest.raises(EndpointUnavailable) as caught:
        import_from_hub()
    assert caught.value.error_code == "hub_unavailable"


def test_a_hub_that_is_not_there_is_unavailable(
    hub: Hub, import_from_hub: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", "127.0.0.1")
    with pytest.raises(EndpointUnavailable):
        import_from_hub()


def test_no_request_leaves_for_a_host_that_is_not_listed(
    hub: Hub, import_from_hub: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", "huggingface.co")
    with pytest.raises(EndpointError) as caught:
        import_from_hub()
    assert caught.value.error_code == "endpoint_not_allowed"
    assert hub.requests == []


def test_a_redirect_to_a_host_that_is_not_listed_is_refused(hub: Hub, import_from_hub: Import) -> None:
    with playing_hub() as internal:
        internal.repositories[HH] = dict(hub.repositories[HH])
        hub.elsewhere, hub.faults = internal.url, ["elsewhere"] * 9
        with pytest.raises(DeftError) as caught:
            import_from_hub()
        assert caught.value.error_code == "endpoint_not_allowed"
        assert internal.requests == []


def test_a_split_beyond_the_cap_is_refused_before_it_is_downloaded(
    hub: Hub, import_from_hub: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_MAX_UPLOAD_BYTES", "50")
    with pytest.raises(DataError, match="more than 50"):
        import_from_hub()
    assert not any("/resolve/" in path for _, path in hub.requests)


def test_which_files_hold_a_split() -> None:
    paths = ["train/0.parquet", "a/train.json", "train.csv", "x/train-00000-of-00003-abcdef.parquet",
             "train_sft-00000-of-00001.parquet", "retrain.jsonl", "test.jsonl"]  # fmt: skip
    assert split_files(paths, HubDataset(hub="a/b", split="train")) == [
        "train/0.parquet", "a/train.json", "x/train-00000-of-00003-abcdef.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields", [{"hub": "one"}, {"hub": "a/b/c"}, {"hub": "../x"}, {"data_dir": "a/../b"}, {"data_dir": "/"},
               {"split": "a b"}, {"split": ""}, {"limit": 0}, {"revision": "a//b"}]
)  # fmt: skip
def test_a_name_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        HubDataset(**{"hub": "a/b", "split": "train", **fields})
