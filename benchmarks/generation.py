"""Greedy generation beside transformers' ``generate``: ``python benchmarks/generation.py [--data FILE]``.

``generate`` gets batches of 8 prompts as they come, padded on the left; the engine gets all of them, as the
stage ``generate`` does. Every side answers the same prompts in one process, in rounds that alternate, and
stops at the same tokens; in float32 the texts must be equal. "Same products": by the library that the engine
takes on this machine. bfloat16 is measured where this CPU is fast at it. The default model needs the extra
``smollm2``.

Writes ``results/generation.json``. FILE has any of the formats; without it, data is generated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from floating_point import fast_precisions
from measuring import alternate, data_name, machine, median, parser, samples_of, seconds, write
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from deft_engine.generation import Decoder
from deft_engine.matrix_products import Library, in_use, multiplied_by
from deft_engine.models import load_policy
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer

PEER_BATCH = 8
MAX_PROMPT = 384
SEED = 11

Texts = list[str]


def peer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], new_tokens: int
) -> Texts:
    """The library's own loop, in batches of prompts as they come."""
    config = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts: Texts = []
    for start in range(0, len(prompts), PEER_BATCH):
        batch = tokenizer.pad(
            {"input_ids": prompts[start : start + PEER_BATCH]}, padding_side="left", return_tensors="pt"
        )
        output = model.generate(**batch, generation_config=config)
        texts += tokenizer.batch_decode(
            output[:, batch["input_ids"].shape[1] :],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
    return texts


def ours(decoder: Decoder, prompts: list[list[int]]) -> tuple[Texts, int]:
    """The engine's decoder; the texts, and how many tokens they took."""
    answers = dict(decoder.answers(prompts))
    texts = [answers[index].text for index in range(len(prompts))]
    return texts, sum(answer.tokens for answer in answers.values())


def measure(uri: str, data: Path | None, count: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds of all sides, and whether they wrote the same."""
    tokenizer = load_tokenizer(uri)
    template = resolve_template("auto", uri, tokenizer)
    model = load_policy(uri, "float32")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    chosen = in_use() or "shipped"

    def decoder(of: PreTrainedModel) -> Decoder:
        return Decoder(of, tokenizer, template, MAX_PROMPT, new_tokens, count)

    in_float32 = decoder(model)
    samples = random.Random(SEED).sample(samples_of(data), count)
    prompts = [in_float32.encode(sample) for sample in samples]
    texts: dict[str, Texts] = {}
    tokens: dict[str, int] = {}

    def peer_side(name: str, library: Library) -> Callable[[], float]:
        def work() -> None:
            with multiplied_by(library), torch.inference_mode():
                texts[name] = peer(model, tokenizer, prompts, new_tokens)

        return lambda: seconds(work)

    def our_side(name: str, how: Decoder) -> Callable[[], float]:
        def work() -> None:
            texts[name], tokens[name] = ours(how, prompts)

        return lambda: seconds(work)

    sides = {
        "generate as shipped": peer_side("generate as shipped", "shipped"),
        "generate, same products": peer_side("generate, same products", chosen),
        "deft": our_side("deft", in_float32),
    }
    peers = {
        "as shipped": ("generate as shipped", "deft"),
        "same products": ("generate, same products", "deft"),
    }
    if "bfloat16" in fast_precisions():
        name = "deft, bfloat16"
        sides[name] = our_side(name, decoder(load_policy(uri, "float32").bfloat16()))
        peers["bfloat16 against float32 as shipped"] = ("generate as shipped", name)
    ours(in_float32, prompts[:2])  # what is done once
    found = alternate(sides, rounds)
    medians = {name: median(each) for name, each in found.items()}
    same = {name: _equal_share(texts[name], texts["generate as shipped"]) for name in sides}
    assert same["deft"] == 1.0, f"of the texts {same['deft']:.3f} are the same"
    return {
        "prompts": count,
        "prompt_tokens": sum(map(len, prompts)),
        "new_tokens": tokens,
        "decoding": in_float32.decoding,
        "matrix_products": chosen,
        "seconds": {name: {"median": medians[name], "all": each} for name, each in found.items()},
        "tokens_per_second": {name: round(tokens[name] / medians[name], 1) for name in tokens},
        "same_text": same,
        "speedup": {name: round(medians[peer] / medians[side], 2) for name, (peer, side) in peers.items()},
    }


def _equal_share(texts: Texts, expected: Texts) -> float:
    return sum(map(str.__eq__, texts, expected)) / len(expected)


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "generation")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--prompts", type=int, default=64)
    made.add_argument("--new-tokens", type=int, default=128)
    made.add_argument("--rounds", type=int, default=3)
    parsed = made.parse_args()
    about = machine() | {"data": data_name(parsed.data), "model": parsed.model, "rounds": parsed.rounds}
    write(
        parsed.out,
        about | measure(parsed.model, parsed.data, parsed.prompts, parsed.new_tokens, parsed.rounds),
    )


if __name__ == "__main__":
    main()
