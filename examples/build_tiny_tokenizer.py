"""Builds the tokenizer of ``builtin:tiny``: ``python examples/build_tiny_tokenizer.py``.

Trained on text of our own alone: the demo's data and the project's documentation. The same text gives
the same bytes; ids of saved models depend on them, so build a new one only on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from deft_client.demo_data import generate
from deft_engine.builtin.tiny import SPECIAL_TOKENS, TOKENIZER_FILE, VOCABULARY

DEMO_SAMPLES = 2_000
SEED = 20_260
ROOT = Path(__file__).resolve().parent.parent


def texts() -> Iterator[str]:
    """The demo's prompts and answers, then the documentation, each file as a whole."""
    for row in generate(DEMO_SAMPLES, SEED):
        yield from _strings(row)
    yield "\n\nHuman: \n\nAssistant: "
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        yield path.read_text(encoding="utf-8")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def main() -> None:
    """Train and write ``deft_engine/builtin/tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = list(SPECIAL_TOKENS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, specials.index(bos))]
    )
    tokenizer.save(str(TOKENIZER_FILE), pretty=False)
    print(f"{TOKENIZER_FILE}: {tokenizer.get_vocab_size()} tokens, {TOKENIZER_FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
