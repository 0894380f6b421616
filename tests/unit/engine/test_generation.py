import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from deft_engine import generation, resumable
from deft_engine.data.generations import read_generations
from deft_engine.data.samples import write_samples
from deft_engine.data.selection import choose
from deft_engine.errors import Interrupted, ModelError
from deft_engine.events import EventWriter, read_events
from deft_engine.generation import Decoder, answer_samples, run
from deft_engine.models import load_policy
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import GenerateSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Message, Response, Sample
from tests.unit.engine.stage_folders import StopAtCheck

WORDS = ["how", "do", "I", "bake", "a", "good", "loaf", "in", "a", "small", "oven", "when", "it", "rains"]
SPEC = GenerateSpec(
    max_new_tokens=12,
    max_prompt_length=64,
    samples=None,
    seed=1,
    batch_size=3,
    dtype="float32",
    template="hh",
)


def _samples(n: int) -> list[Sample]:
    rng = random.Random(0)
    return [
        Sample(
            f"s{i}",
            "odd" if i % 2 else "even",
            (Message("user", " ".join(rng.choices(WORDS, k=rng.randint(1, 30)))),),
            (Response(f"best {i}"), Response("worse")),
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("builtin:tiny")


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    policy = load_policy("builtin:tiny", "float32")
    with torch.no_grad():  # sharper than at initialisation, so that answers differ from prompt to prompt
        for layer in policy.model.layers:
            layer.self_attn.v_proj.weight.mul_(20)
            layer.mlp.down_proj.weight.mul_(20)
    return policy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resumable, "WINDOW", 3)
    write_samples(tmp_path / "samples.parquet", _samples(8))
    return tmp_path


def _context(folder: Path, spec: GenerateSpec, stop: StopRequest) -> StageContext[GenerateSpec]:
    for name in ("out", "work"):
        (folder / name).mkdir(exist_ok=True)
    inputs = {"samples": str(folder / "samples.parquet"), "model": "builtin:tiny"}
    events = EventWriter(folder / "events.jsonl")
    return StageContext(spec, inputs, folder / "out", folder / "work", events, stop)


def _texts(decoder: Decoder, prompts: list[list[int]]) -> list[str]:
    answers = dict(decoder.answers(prompts))
    return [answers[index].text for index in range(len(prompts))]


def test_a_batch_of_several_lengths_answers_as_one_prompt_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    decoder = Decoder(model, tokenizer, "hh", 64, 24, 3)
    assert decoder.decoding == "slots"
    prompts = [decoder.encode(sample) for sample in _samples(8)]
    assert len({len(prompt) for prompt in prompts}) > 4
    together = _texts(decoder, prompts)
    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        for _ in range(24):  # plain greedy decoding without cache or padding
            token = model(ids).logits[0, -1].argmax()
            if token == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
        text = tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
        alone.append(text.split("\n\nHuman:")[0].split("\n\nAssistant:")[0].removeprefix(" "))
    assert together == alone
    assert len(set(together)) > 4


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" Yes.<eos> more", "Yes."),
        (" Yes.\n\nHuman: and then?", "Yes."),
        (" Yes.\n\nAssistant: again", "Yes."),
        ("\n\nHuman: at once", ""),
        ("<eos>", ""),
        ("  two spaces\n\nHumans: are not a turn", " two spaces\n\nHumans: are not a turn"),
    ],
)
def test_an_answer_ends_at_eos_or_at_a_new_turn(
    written: str,
    text: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]

    class Written:
        """Decodes what is written, whatever the prompt."""

        def answers(
            self, prompts: object, ended: Callable[[list[int]], bool], interrupt: object
        ) -> Iterator[tuple[int, list[int]]]:
            count = next((n for n in range(1, len(ids)) if ended(ids[:n])), len(ids))
            yield 0, ids[:count]

    monkeypatch.setattr(generation, "decoding", lambda *_: Written())
    ((_, answer),) = Decoder(model, tokenizer, "hh", 64, len(ids), 4).answers([[1, 40, 41]])
    assert answer.text == text
    if "eos" in written or "\n\nHuman:" in written:
        assert answer.tokens < len(ids) or written.endswith("<eos>")


def test_the_prompt_is_cut_on_the_left_and_keeps_its_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    decoder = Decoder(model, tokenizer, "hh", 20, 4, 4)
    prompt = (
        Message("user", "old " * 50),
        Message("assistant", "old " * 50),
        Message("user", "the last one"),
    )
    ids = decoder.encode(Sample("s", "x", prompt, (Response("a"), Response("b"))))
    assert len(ids) == 20
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids).endswith("\n\nHuman: the last one\n\nAssistant:")


def test_the_model_s_own_generation_settings_do_not_matter(tokenizer: PreTrainedTokenizerBase) -> None:
    plain, odd = (load_policy("builtin:tiny", "float32") for _ in range(2))
    odd.generation_config.repetition_penalty = 5.0
    odd.generation_config.do_sample = True
    prompts = [[1, 300, 301, 302]]
    texts = [_texts(Decoder(m, tokenizer, "hh", 64, 16, 4), prompts) for m in (plain, odd)]
    assert texts[0] == texts[1]


def test_an_answer_longer_than_the_model_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ModelError, match="1024 positions"):
        Decoder(model, tokenizer, "hh", 512, 1024, 4)


def test_the_choice_of_samples_depends_on_the_seed_alone() -> None:
    assert choose(100, 10, 7) == choose(100, 10, 7) != choose(100, 10, 8)
    assert choose(5, 10, 7) == choose(5, None, 7) == range(5)
    counts = [0] * 20
    for seed in range(400):
        for index in choose(20, 5, seed):
            counts[index] += 1
    assert min(counts) > 60  # 100 expected


def test_the_stage_writes_answers_in_the_order_of_the_samples(folder: Path) -> None:
    spec = SPEC.model_copy(update={"samples": 5})
    result = run(_context(folder, spec, StopRequest()))
    generations = list(read_generations(folder / "out" / "generations.jsonl"))
    chosen = choose(8, 5, 1)
    assert [g.sample_id for g in generations] == [f"s{i}" for i in chosen]
    assert [g.reference for g in generations] == [f"best {i}" for i in chosen]
    assert [g.subset for g in generations] == ["odd" if i % 2 else "even" for i in chosen]
    assert generations[0].prompt == _samples(8)[chosen[0]].prompt
    assert result["samples"] == 5
    assert 5 <= result["tokens"] <= 5 * 12
    events = [event for _, event in read_events(folder / "events.jsonl", 0)]
    reported = [(event["step"], event["total"]) for event in events if event["type"] == "progress"]
    assert reported == [(done, 5) for done in range(6)]
    assert all(e["values"]["generate/tokens_per_second"] > 0 for e in events if e["type"] == "metrics")


def test_a_stopped_stage_goes_on_with_the_same_text(folder: Path) -> None:
    expected = run(_context(folder, SPEC, StopRequest()))
    whole = (folder / "out" / "generations.jsonl").read_bytes()
    shutil.rmtree(folder / "work")
    with pytest.raises(Interrupted):
        run(_context(folder, SPEC, StopAtCheck(20)))  # a window of 3 takes 12 steps
    assert [path.name for path in (folder / "work").iterdir()] == ["answers-000000.json"]
    (folder / "work" / "answers-000001.partial").write_text('["killed while')
    steps = StopAtCheck(1_000)
    result = run(_context(folder, SPEC, steps))
    assert (folder / "out" / "generations.jsonl").read_bytes() == whole
    assert {**result, "seconds": 0} == {**expected, "seconds": 0}
    assert steps.left >= 1_000 - 2 * 12


def test_samples_come_and_go_window_by_window(folder: Path) -> None:
    read: list[str] = []

    class Noted(list[Sample]):
        def __iter__(self) -> Iterator[Sample]:
            for sample in super().__iter__():
                read.append(sample.id)
                yield sample

    decoder = Decoder.load("builtin:tiny", SPEC)
    answered = answer_samples(decoder, Noted(_samples(8)), _context(folder, SPEC, StopRequest()))
    assert next(answered)[0].id == "s0"
    assert len(read) == 3
