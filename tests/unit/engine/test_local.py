import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deft_client.demo_data import write_jsonl
from deft_engine import stage_process
from deft_engine.local import run_job
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED, StopRequest

GRADE = "kind: grade\ndataset: {data}\nmodel: {{base: tiny}}\ndeft: {{a: 20, grader: {{name: scores}}}}\n"
ALIGN = """
kind: align
dataset: {data}
preset: deft-dpo
model: {{base: tiny}}
deft: {{a: 20, grader: {{name: scores}}}}
training: {{max_steps: {steps}, learning_rate: 1.0e-4, checkpoint_every: 1}}
evaluation: {{samples: 4, max_new_tokens: 4}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "demo.jsonl"
    write_jsonl(path, 60, seed=3)
    return path


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return tmp_path / "spec.yaml"


def _run(spec: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    status = run_job(spec, out, StopRequest(), as_json=True)
    return status, json.loads(capsys.readouterr().out)


MINE = "kind: align\ndataset: x\nmodel: {base: tiny}\n"
ON_DATA = "kind: align\ndataset: {data}\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kind: [grade", ["line 1", "correct the YAML"]),
        ("a plain sentence", ["holds no fields", "kind: align"]),
        ("dataset: x.jsonl", ["kind: 'kind' is missing"]),
        ("kind: allign", ["kind: 'allign' is unknown", "'align', 'grade', 'reward_model', 'evaluate'"]),
        (MINE + "method: {name: ppo}", ["method.name: 'ppo' is unknown"]),
        ("kind: align\nmodel: {base: tiny}", ["dataset: is missing"]),
        (MINE + "epochs: 3", ["epochs: there is no such field"]),
        ("kind: grade\ndataset: x\ndeft: {a: 60, c: 60}", ["deft: a + c is 120", "lower a or c"]),
        (MINE + "preset: dft", ["preset 'dft' is unknown", "deft-dpo"]),
        ("kind: grade\ndataset: no/such.jsonl", ["no/such.jsonl", "no such file", "/dataset"]),
        (ON_DATA + "model: {{base: job:job_1}}", ["names a job", "/model/base"]),
        (ON_DATA + "model: {{base: tinny}}", ["'tinny' is not known", "tiny, smollm2"]),
    ],
)
def test_a_wrong_spec_is_told_with_its_place_and_remedy(
    text: str, parts: list[str], spec: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(text.format(data=data) if "{data}" in text else text)
    assert run_job(spec, tmp_path / "out", StopRequest(), as_json=False) == EXIT_FAILED
    told = capsys.readouterr()
    assert told.out == ""
    for part in parts:
        assert part in told.err
    assert "Traceback" not in told.err
    assert not list(tmp_path.glob("out/*"))


def test_every_fault_is_in_the_json(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text("kind: align\ndataset: x\nmodel: {base: tiny, dtype: int8}\ntraining: {epochs: 0}")
    status, told = _run(spec, tmp_path / "out", capsys)
    assert status == EXIT_FAILED
    assert told["status"] == "failed"
    error = told["error"]
    assert isinstance(error, dict)
    assert [fault["pointer"] for fault in error["errors"]] == ["/model/dtype", "/training/epochs"]


def test_a_missing_spec_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(tmp_path / "none.yaml", tmp_path / "out", StopRequest(), as_json=False) == EXIT_FAILED
    assert "none.yaml cannot be read: No such file" in capsys.readouterr().err


def test_an_error_of_a_stage_names_the_stage_and_its_log(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(['{"prompt": "p", "responses": ["a", "b"]}'] * 3))  # no scores
    spec.write_text(GRADE.format(data=bad))
    status, told = _run(spec, tmp_path / "out", capsys)
    error = told["error"]
    assert isinstance(error, dict)
    assert (status, error["stage"]) == (EXIT_FAILED, "score")
    assert error["message"]
    assert error["hint"]
    assert Path(error["log"]).is_file()


def test_a_second_run_in_the_folder_is_refused(
    spec: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(GRADE.format(data=data))
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, told = _run(spec, tmp_path / "out", capsys)
    assert status == EXIT_FAILED
    assert "another deft run" in str(told["error"])


def test_a_process_that_dies_without_a_word_is_a_crash(
    spec: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def start(folder: Path) -> subprocess.Popen[bytes]:
        (folder / stage_process.LOG).write_text("last words\n")
        return subprocess.Popen(
            [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], stdin=subprocess.PIPE
        )

    monkeypatch.setattr(stage_process, "start", start)
    spec.write_text(GRADE.format(data=data))
    status, told = _run(spec, tmp_path / "out", capsys)
    error = told["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (EXIT_FAILED, "stage_crashed")
    assert "SIGKILL: last words" in error["message"]


@pytest.mark.parametrize("code", ["signal.pause()", "signal.sigwait([15]); sys.exit(75)"])
def test_a_stop_reaches_the_stage_s_process(
    code: str,
    spec: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = StopRequest()
    ready = (
        f"import signal, sys; signal.pthread_sigmask(0, [15] * {'exit' in code}); print(flush=True); {code}"
    )

    def start(folder: Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        stop.set()
        return child

    monkeypatch.setattr(stage_process, "start", start)
    spec.write_text(GRADE.format(data=data))
    assert run_job(spec, tmp_path / "out", stop, as_json=True) == EXIT_INTERRUPTED
    assert json.loads(capsys.readouterr().out)["status"] == "interrupted"


def test_a_grade_job_is_byte_equal_elsewhere_and_reused_at_home(
    spec: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(GRADE.format(data=data))
    here, there = tmp_path / "here", tmp_path / "there"
    for out in (here, there):
        assert _run(spec, out, capsys)[0] == EXIT_SUCCEEDED
    for name in ("scores.parquet", "levels.parquet", "qdiff.safetensors"):
        assert (here / name).is_symlink()
        assert (here / name).read_bytes() == (there / name).read_bytes()
    manifest = json.loads((here / "manifest.json").read_bytes())
    assert [stage["stage"] for stage in manifest["stages"]] == ["import", "score", "grade", "distribution"]
    assert manifest["spec"]["deft"]["a"] == 20
    assert set(manifest["artifacts"]) == {
        "scores.parquet", "levels.parquet", "grading.json", "qdiff.safetensors", "qdiff_tokens.json",
    }  # fmt: skip
    spec.write_text(GRADE.format(data=data).replace("a: 20", "a: 30"))
    assert run_job(spec, here, StopRequest(), as_json=True) == EXIT_SUCCEEDED
    told = capsys.readouterr()
    states = [line.split("] ")[1].split(" in ")[0] for line in told.err.splitlines()]
    assert states[:2] == ["import: reused", "score: reused"]
    assert states[2] == "grade: succeeded"
    assert (here / "levels.parquet").read_bytes() != (there / "levels.parquet").read_bytes()
    assert len(list((here / "stages").glob("grade-*/events-*.jsonl"))) == 2
