import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from deft_engine.data.generations import read_generations
from deft_engine.data.samples import write_samples
from deft_engine.data.selection import choose
from deft_engine.errors import Interrupted, ModelError
from deft_engine.events import EventWriter, read_events
from deft_engine.generation import Decoder, length_batches, run
from deft_engine.models import load_policy
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import GenerateSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Message, Response, Sample

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
def folder(tmp_path: Path) -> Path:
    write_samples(tmp_path / "samples.parquet", _samples(8))
    return tmp_path


def _context(folder: Path, spec: GenerateSpec, stop: StopRequest) -> StageContext[GenerateSpec]:
    for name in ("out", "work"):
        (folder / name).mkdir(exist_ok=True)
    inputs = {"samples": str(folder / "samples.parquet"), "model": "builtin:tiny"}
    events = EventWriter(folder / "events.jsonl")
    return StageContext(spec, inputs, folder / "out", folder / "work", events, stop)


def test_a_batch_of_several_lengths_answers_as_one_prompt_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    decoder = Decoder(model, tokenizer, "hh", 64, 24)
    prompts = [decoder.encode(sample) for sample in _samples(8)]
    assert len({len(prompt) for prompt in prompts}) > 4
    together = [answer.text for answer in decoder.answer(prompts)]
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
    prompt = [1, 40, 41]
    fed: list[int] = []

    def forward(input_ids: torch.Tensor, **_: object) -> object:
        from transformers.modeling_outputs import CausalLMOutputWithPast

        logits = torch.full((1, input_ids.shape[1], len(tokenizer)), -9.0)
        logits[0, -1, ids[len(fed)]] = 9.0
        fed.append(ids[len(fed)])
        return CausalLMOutputWithPast(logits=logits)

    decoder = Decoder(model, tokenizer, "hh", 64, len(ids))
    monkeypatch.setattr(model, "forward", forward)
    (answer,) = decoder.answer([prompt])
    assert answer.text == text
    if "eos" in written or "\n\nHuman:" in written:
        assert len(fed) < len(ids) or written.endswith("<eos>")


def test_the_prompt_is_cut_on_the_left_and_keeps_its_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    decoder = Decoder(model, tokenizer, "hh", 20, 4)
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
    texts = [Decoder(m, tokenizer, "hh", 64, 16).answer(prompts) for m in (plain, odd)]
    assert texts[0] == texts[1]


def test_an_answer_longer_than_the_model_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ModelError, match="1024 positions"):
        Decoder(model, tokenizer, "hh", 512, 1024)


def test_the_choice_of_samples_depends_on_the_seed_alone() -> None:
    assert choose(100, 10, 7) == choose(100, 10, 7) != choose(100, 10, 8)
    assert choose(5, 10, 7) == choose(5, None, 7) == [0, 1, 2, 3, 4]
    counts = [0] * 20
    for seed in range(400):
        for index in choose(20, 5, seed):
            counts[index] += 1
    assert min(counts) > 60  # 100 expected


def test_batches_go_from_long_to_short() -> None:
    prompts = [[0] * n for n in (3, 9, 1, 9, 5)]
    assert list(length_batches(prompts, 2)) == [[1, 3], [4, 0], [2]]


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
    assert [(e["step"], e["total"]) for e in events if e["type"] == "progress"] == [(0, 5), (3, 5), (5, 5)]
    assert all(e["values"]["generate/tokens_per_second"] > 0 for e in events if e["type"] == "metrics")


def test_a_stopped_stage_goes_on_with_the_same_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(_context(folder, SPEC, StopRequest()))
    whole = (folder / "out" / "generations.jsonl").read_bytes()
    kept = (folder / "work" / "generated.jsonl").read_bytes().splitlines(keepends=True)
    assert len(kept) == 3
    (folder / "work" / "generated.jsonl").write_bytes(kept[0] + kept[1][:-7])  # killed while it wrote
    decoded: list[int] = []
    plain = Decoder.answer

    def counted(self: Decoder, prompts: list[list[int]], interrupt: Callable[[], None]) -> object:
        decoded.append(len(prompts))
        return plain(self, prompts, interrupt)

    monkeypatch.setattr(Decoder, "answer", counted)
    result = run(_context(folder, SPEC, StopRequest()))
    assert decoded == [3, 2]
    assert (folder / "out" / "generations.jsonl").read_bytes() == whole
    assert result["samples"] == 8


def test_a_stop_is_heeded_within_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    forward, calls = Decoder.answer, []

    def stopping(self: Decoder, prompts: list[list[int]], interrupt: Callable[[], None]) -> object:
        calls.append(os.getpid())
        if len(calls) == 2:
            stop.set()
        return forward(self, prompts, interrupt)

    monkeypatch.setattr(Decoder, "answer", stopping)
    with pytest.raises(Interrupted):
        run(_context(folder, SPEC, stop))
    (line,) = (folder / "work" / "generated.jsonl").read_text().splitlines()
    assert len(json.loads(line)["responses"]) == 3
