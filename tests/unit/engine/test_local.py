import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deft_client.demo_data import write_jsonl
from deft_engine import stage_process
from deft_engine.events import read_events
from deft_engine.local import LocalResolver, run_job
from deft_engine.planning import plan_job
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED, StageRequest, StopRequest
from deft_engine.spec_file import read_job
from deft_engine.stages import ImportSpec

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

GRADE = "kind: grade\ndataset: {data}\nmodel: {{base: tiny}}\ndeft: {{a: 20, grader: {{name: scores}}}}\n"
ALIGN = """
kind: align
dataset: {data}
preset: deft-dpo
model: {{base: tiny}}
deft: {{a: 20, grader: {{name: scores}}}}
training: {{max_steps: 2, learning_rate: 1.0e-4}}
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


def test_a_dataset_s_path_may_be_long(spec: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a folder with quite a long name"] * 12)
    folder.mkdir(parents=True)
    there = folder / "demo.jsonl"
    there.symlink_to(data)
    assert len(str(there)) > 300
    spec.write_text(GRADE.format(data=there))
    plan = plan_job(read_job(spec), LocalResolver())
    assert f"path:{there}" in [source.uri for source in plan.stages[0].inputs.values()]  # type: ignore[union-attr]


def test_a_name_too_long_for_a_file_is_told(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(GRADE.format(data="x" * 300))
    assert run_job(spec, tmp_path / "out", StopRequest(), as_json=False) == EXIT_FAILED
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("faults", [1, 500])  # less and more than a buffer of output
def test_a_reader_that_leaves_ends_it_silently(faults: int, spec: Path, tmp_path: Path) -> None:
    spec.write_text("kind: grade\ndataset: x\n" + "".join(f"field{n}: 1\n" for n in range(faults)))
    command = [
        sys.executable,
        "-m",
        "deft_engine",
        "run",
        str(spec),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


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


def test_a_stage_ends_with_its_parent(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "demo.jsonl", 20_000, seed=1)
    folder = tmp_path / "import"
    folder.mkdir()
    request = StageRequest(
        stage="import",
        fingerprint="f",
        spec=ImportSpec().model_dump(mode="json"),
        inputs={"upload": str(tmp_path / "demo.jsonl")},
        input_ids={"upload": "u"},
    )
    (folder / "stage.json").write_text(request.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from deft_engine import stage_process\n"
        "print(stage_process.start(Path(sys.argv[1])).pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=60)
    events = [event for _, event in read_events(folder / "events-1.jsonl", 0)]
    assert events[-1]["message"] == "stopped on request"
    assert not (folder / "manifest.json").exists()


@pytest.fixture(scope="module")
def aligned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole align job with ``tiny``: some 30 s."""
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "spec.yaml").write_text(ALIGN.format(data=data))
    assert run_job(folder / "spec.yaml", folder / "out", StopRequest(), as_json=False) == EXIT_SUCCEEDED
    return folder / "out"


def test_an_align_job_leaves_every_artifact_under_its_name(aligned: Path) -> None:
    manifest = json.loads((aligned / "manifest.json").read_bytes())
    assert [stage["stage"] for stage in manifest["stages"]] == [
        "import", "score", "grade", "distribution", "reference", "train", "generate", "evaluate",
    ]  # fmt: skip
    names = {
        "scores.parquet",
        "levels.parquet",
        "qdiff.safetensors",
        "model",
        "generations.jsonl",
        "results.json",
    }
    assert all((aligned / name).is_symlink() and (aligned / name).exists() for name in names)
    assert names - {"model"} <= set(manifest["artifacts"])
    assert "model/model.safetensors" in manifest["artifacts"]
    assert manifest["spec"]["preset"] == "deft-dpo"
    results = json.loads((aligned / "results.json").read_bytes())
    assert results["total"]["bleu"]["n"] == 4
    assert any("evaluated on the training data" in warning for warning in results["warnings"])


def test_the_same_job_again_starts_no_process(
    aligned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage_process, "start", lambda folder: pytest.fail(f"{folder} ran again"))
    status, told = _run(aligned.parent / "spec.yaml", aligned, capsys)
    assert status == EXIT_SUCCEEDED
    assert told["status"] == "succeeded"


def test_another_job_in_the_folder_reuses_what_is_equal_and_drops_old_links(
    aligned: Path, data: Path, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage_process, "start", lambda folder: pytest.fail(f"{folder} ran again"))
    spec.write_text(GRADE.format(data=data))
    assert _run(spec, aligned, capsys)[0] == EXIT_SUCCEEDED
    assert (aligned / "levels.parquet").exists()
    assert not (aligned / "model").is_symlink()
    assert _run(aligned.parent / "spec.yaml", aligned, capsys)[0] == EXIT_SUCCEEDED
    assert (aligned / "model" / "config.json").is_file()


def test_grading_is_byte_equal_elsewhere(
    aligned: Path, data: Path, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(GRADE.format(data=data))
    assert _run(spec, tmp_path / "there", capsys)[0] == EXIT_SUCCEEDED
    for name in ("scores.parquet", "levels.parquet", "qdiff.safetensors"):
        assert (aligned / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
