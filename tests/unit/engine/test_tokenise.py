from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deft_engine.builtin.tiny import TOKENIZER_FILE, VOCABULARY
from deft_engine.data.tokenise import tokenise
from deft_engine.errors import ModelError
from deft_engine.templates import cut_prompt, render_prompt, render_response, resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.types import Message, Response, Sample

TINY = load_tokenizer("builtin:tiny")
BOS, EOS = TINY.bos_token_id, TINY.eos_token_id
CHATML = (
    "{% for m in messages %}<bos>{{ m.role }}\n{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant\n{% endif %}"
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def sample(prompt: list[tuple[str, str]], *responses: str) -> Sample:
    messages = tuple(Message(role, content) for role, content in prompt)
    return Sample("s", "x", messages, tuple(Response(text) for text in responses))


def with_chat_template() -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer("builtin:tiny")
    tokenizer.chat_template = CHATML
    return tokenizer


@given(text)
def test_the_built_in_tokenizer_loses_nothing(content: str) -> None:
    assert TINY.decode(TINY(content, add_special_tokens=False)["input_ids"]) == content


def test_the_built_in_tokenizer_is_small_and_whole() -> None:
    assert len(TINY) == VOCABULARY == 2048
    assert TOKENIZER_FILE.stat().st_size < 150_000
    assert [TINY.pad_token_id, BOS, EOS] == [0, 1, 2]


@settings(deadline=None)
@given(question=text, answer=text)
def test_hh_is_the_transcript_with_an_exact_boundary(question: str, answer: str) -> None:
    tokenised = tokenise(sample([("user", question)], answer, "x"), TINY, "hh", 4096, [0, 1])
    assert TINY.decode(tokenised.prompt) == f"<bos>\n\nHuman: {question}\n\nAssistant:"
    assert TINY.decode(tokenised.responses[0]) == f" {answer}<eos>"
    assert tokenised.prompt.count(BOS) == 1
    for response in tokenised.responses:
        assert response.count(EOS) == 1
        assert response[-1] == EOS


def test_hh_renders_all_turns() -> None:
    prompt = [Message("system", "S"), Message("user", "A"), Message("assistant", "B"), Message("user", "C")]
    assert (
        TINY.decode(render_prompt(TINY, prompt, "hh"))
        == "<bos>\n\nSystem: S\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant:"
    )


@pytest.mark.parametrize("template", ["hh", "chat"])
def test_special_tokens_in_a_response_stay_text(template: str) -> None:
    tokenizer = with_chat_template()
    ids = render_response(tokenizer, "a<eos><bos><pad>b", template)
    assert not {0, BOS, EOS} & set(ids)
    assert tokenizer.decode(ids).strip() == "a<eos><bos><pad>b"


def test_chat_is_the_tokenizers_own_template() -> None:
    tokenizer = with_chat_template()
    tokenised = tokenise(sample([("user", "Q")], "A", "B"), tokenizer, "chat", 512, [0, 1])
    expected = tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], add_generation_prompt=True)
    assert tokenised.prompt == expected["input_ids"]
    assert tokenizer.decode(tokenised.responses[0]) == "A<eos>"


def test_a_doubled_bos_is_removed() -> None:
    tokenizer = with_chat_template()
    tokenizer.chat_template = "<bos>" + CHATML
    ids = render_prompt(tokenizer, [Message("user", "Q")], "chat")
    assert ids[0] == BOS
    assert ids[1] != BOS


def test_a_chat_template_that_refuses_is_an_error_with_the_roles() -> None:
    tokenizer = with_chat_template()
    tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(ModelError, match=r"roles system, user: no system turns"):
        render_prompt(tokenizer, [Message("system", "S"), Message("user", "Q")], "chat")


def test_a_chat_template_runs_in_a_sandbox() -> None:
    tokenizer = with_chat_template()
    tokenizer.chat_template = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(ModelError, match="unsafe"):
        render_prompt(tokenizer, [Message("user", "Q")], "chat")


def oasst_tokenizer() -> PreTrainedTokenizerFast:
    words = {
        word: index for index, word in enumerate(["<|endoftext|>", "<|prompter|>", "<|assistant|>", "Q", "A"])
    }
    inner = Tokenizer(models.WordLevel(words, unk_token="A"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        additional_special_tokens=["<|prompter|>", "<|assistant|>"],
    )


def test_oasst_wraps_each_turn_in_its_tokens() -> None:
    prompt = [("user", "Q"), ("assistant", "A"), ("user", "Q")]
    tokenised = tokenise(sample(prompt, "A", "A A"), oasst_tokenizer(), "oasst", 512, [0, 1])
    assert tokenised.prompt == [1, 3, 0, 2, 4, 0, 1, 3, 0, 2]
    assert tokenised.responses == [[4, 0], [4, 4, 0]]


def test_templates_that_do_not_fit_the_tokenizer_are_refused() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        resolve_template("chat", "builtin:tiny", TINY)
    with pytest.raises(ModelError, match=r"no token <\|prompter\|> or <\|assistant\|>"):
        resolve_template("oasst", "builtin:tiny", TINY)
    assert resolve_template("oasst", "builtin:tiny", oasst_tokenizer()) == "oasst"
    assert resolve_template("auto", "builtin:tiny", TINY) == "hh"
    assert resolve_template("auto", "builtin:tiny", with_chat_template()) == "chat"


words = st.lists(st.sampled_from(["red", "green", "a", "tree", "why"]), max_size=60).map(" ".join)


@settings(deadline=None, max_examples=150)
@given(
    turns=st.lists(words, min_size=1, max_size=4),
    answers=st.lists(words, min_size=2, max_size=3),
    max_length=st.integers(16, 120),
)
def test_what_does_not_fit_is_cut_prompt_first(turns: list[str], answers: list[str], max_length: int) -> None:
    roles = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    long = sample(list(zip(roles, turns, strict=True)), *answers)
    order = range(len(answers))
    whole = tokenise(long, TINY, "hh", 100_000, order)
    cut = tokenise(long, TINY, "hh", max_length, order)
    assert max(len(cut.prompt) + len(response) for response in cut.responses) <= max_length
    # the prompt loses its left end alone, and nothing where everything fits
    assert whole.prompt[len(whole.prompt) - len(cut.prompt) + 1 :] == cut.prompt[1:]
    assert cut.prompt[0] == BOS
    if max(len(whole.prompt) + len(response) for response in whole.responses) <= max_length:
        assert cut == whole
    # responses lose their right end alone, keep EOS, and are counted
    shorter = 0
    for full, kept in zip(whole.responses, cut.responses, strict=True):
        assert kept == (full if len(kept) == len(full) else [*full[: len(kept) - 1], EOS])
        shorter += len(kept) < len(full)
    assert cut.truncated == shorter
    # a response is cut only where the prompt already gave all that it can: down to its last user turn, or to
    # three quarters of the length where that turn is longer
    last_user = [index for index, role in enumerate(roles) if role == "user"][-1]
    tail = [Message(role, content) for role, content in zip(roles, turns, strict=True)][last_user:]
    last_turn = len(render_prompt(TINY, tail, "hh"))
    if shorter:
        assert len(cut.prompt) <= min(last_turn, max_length - max_length // 4)
    elif len(cut.prompt) < last_turn:
        assert len(cut.prompt) >= max_length - max(map(len, whole.responses))


def test_the_cut_does_not_depend_on_which_responses_are_asked_for() -> None:
    long = sample([("user", "word " * 40)], "short", "long answer " * 10)
    both = tokenise(long, TINY, "hh", 60, [0, 1])
    first = tokenise(long, TINY, "hh", 60, [0])
    assert first.prompt == both.prompt
    assert first.responses == both.responses[:1]
    assert (both.truncated, first.truncated) == (1, 0)
    assert tokenise(long, TINY, "hh", 60, [1, 0]).responses == both.responses[::-1]


def test_cut_prompt_keeps_bos() -> None:
    assert cut_prompt([BOS, 5, 6, 7], 4, TINY) == [BOS, 5, 6, 7]
    assert cut_prompt([BOS, 5, 6, 7], 3, TINY) == [BOS, 6, 7]
    assert cut_prompt([5, 6, 7], 2, TINY) == [6, 7]


def test_a_tokenizers_fingerprint_survives_saving_and_use(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("builtin:tiny")
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    assert tokenizer_sha256(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_sha256(PreTrainedTokenizerFast.from_pretrained(tmp_path)) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_sha256(tokenizer) != before
