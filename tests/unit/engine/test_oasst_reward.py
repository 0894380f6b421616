"""OpenAssistant's reward models, against a forward pass put together by hand from transformers' backbone."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXModel, PreTrainedTokenizerBase

from deft_engine.data.generations import write_generations
from deft_engine.errors import ModelError
from deft_engine.evaluators import Reward
from deft_engine.events import EventWriter
from deft_engine.graders import RewardModelGrader
from deft_engine.models import load_policy, load_reward_model
from deft_engine.reward_scoring import score_samples
from deft_engine.run import EXIT_SUCCEEDED, StopRequest
from deft_engine.scores import read_scores
from deft_engine.stages import EvaluateSpec, ScoreSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Generation, Message, Response, Sample
from tests.unit.engine.stage_folders import make_stage, run_stage

LIMIT = 1024
# as the published models' config.json: the names of years ago, and a share of rotated dimensions
CONFIG: dict[str, Any] = {
    "architectures": ["GPTNeoXRewardModel"], "model_type": "gpt_neox_reward_model", "pooling": "last",
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 2048, "rotary_emb_base": 500, "rotary_pct": 0.5, "use_parallel_residual": True,
    "hidden_act": "gelu", "layer_norm_eps": 1e-5, "torch_dtype": "float32", "bos_token_id": 2,
    "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
SHORT = Sample(
    "short", "x", (Message("user", "Which river?"),), (Response("The green one."), Response("No")), 1
)
TURNS = Sample(
    "turns", "x",
    (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Name a stone")),
    (Response("Opal"), Response("a b c"), Response("Granite and more")), 2,
)  # fmt: skip
LONG = Sample(
    "long", "x", (Message("user", "river " * 1500),),
    (Response("one"), Response("green stone " * 40), Response("cloud " * 1800)), 3,
)  # fmt: skip


def oasst_tokenizer() -> PreTrainedTokenizerBase:
    """The built-in tokenizer with OpenAssistant's tokens; as with GPT-NeoX's, none begins a text."""
    tokenizer = load_tokenizer("builtin:tiny")
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    special = {"additional_special_tokens": ["<|prompter|>", "<|assistant|>"], "eos_token": "<|endoftext|>"}
    tokenizer.add_special_tokens(special)
    return tokenizer


def random_weights(vocabulary: int) -> dict[str, Tensor]:
    """Seeded weights by the layout's names, large enough that a mistake shows."""
    backbone = GPTNeoXModel(backbone_config(vocabulary))
    generator = torch.Generator().manual_seed(3)
    weights = {
        f"gpt_neox.{name}": torch.randn(tensor.shape, generator=generator) * 0.2
        for name, tensor in backbone.state_dict().items()
    }
    return weights | {
        "out_proj.weight": torch.randn(1, 32, generator=generator),
        "out_proj.bias": torch.tensor([0.7]),
    }


def backbone_config(vocabulary: int) -> GPTNeoXConfig:
    rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    return GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, rope_parameters=rope, layer_norm_eps=1e-5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights(len(oasst_tokenizer()))


def write_model(folder: Path, weights: dict[str, Tensor], **config: Any) -> str:
    """The folder without its weights' files."""
    folder.mkdir()
    oasst_tokenizer().save_pretrained(folder)
    vocabulary = weights["gpt_neox.embed_in.weight"].shape[0]
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": vocabulary, **config}))
    return str(folder)


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor]) -> str:
    uri = write_model(tmp_path_factory.mktemp("oasst") / "model", weights)
    save_file(weights, Path(uri) / "model.safetensors", {"format": "pt"})
    return uri


def expected_rewards(weights: dict[str, Tensor], sample: Sample) -> list[float]:
    """By the form and the cut that the models were published with, one response at a time."""
    tokenizer = oasst_tokenizer()
    backbone = GPTNeoXModel(backbone_config(len(tokenizer))).eval()
    backbone.load_state_dict(
        {name.removeprefix("gpt_neox."): w for name, w in weights.items() if "gpt_neox" in name}
    )
    rewards = []
    for response in sample.responses:
        tags = {"user": "<|prompter|>", "assistant": "<|assistant|>"}
        turns = "".join(f"{tags[m.role]}{m.content}<|endoftext|>" for m in sample.prompt)
        ids: list[int] = tokenizer(f"{turns}<|assistant|>{response.text}<|endoftext|>")["input_ids"]
        with torch.no_grad():
            states = backbone(torch.tensor([ids[-LIMIT:]])).last_hidden_state[0]
        rewards.append(float(states[-1] @ weights["out_proj.weight"][0] + weights["out_proj.bias"][0]))
    return rewards


def scored(uri: str, samples: list[Sample], folder: Path) -> list[Any]:
    with EventWriter(folder / "events.jsonl") as events:
        return list(score_samples(uri, samples, "all", LIMIT, "auto", events, StopRequest(), folder))


def flat(rewards: list[list[float]]) -> list[float]:
    return [reward for of_sample in rewards for reward in of_sample]


def test_rewards_are_out_proj_at_the_last_token_cut_on_the_left(
    model_uri: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    samples = [SHORT, LONG, TURNS]
    rewards = scored(model_uri, samples, tmp_path)
    assert [len(of_sample) for of_sample in rewards] == [2, 3, 3]
    expected = [expected_rewards(weights, sample) for sample in samples]
    assert flat(rewards) == pytest.approx(flat(expected), abs=2e-4)
    assert len({round(reward, 3) for reward in flat(expected)}) == 8  # so a mix-up would show


def test_the_template_is_oasst(model_uri: str) -> None:
    tokenizer = load_tokenizer(model_uri)
    assert resolve_template("auto", model_uri, tokenizer) == "oasst"
    assert resolve_template("hh", model_uri, tokenizer) == "hh"


@pytest.mark.parametrize("layout", ["pickle", "sharded pickle", "sharded safetensors"])
def test_every_form_of_weights_loads(
    layout: str, model_uri: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    uri = write_model(tmp_path / "model", weights)
    folder = Path(uri)
    # what transformers of those years also wrote
    old = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.full((4,), 9.0),
    }
    everything = weights | old
    if layout == "pickle":
        torch.save(everything, folder / "pytorch_model.bin")
    else:
        suffix, name = (".bin", "pytorch_model") if "pickle" in layout else (".safetensors", "model")
        names = sorted(everything)
        shards = {f"{name}-00001-of-00002{suffix}": names[::2], f"{name}-00002-of-00002{suffix}": names[1::2]}
        for file, held in shards.items():
            part = {key: everything[key] for key in held}
            torch.save(part, folder / file) if suffix == ".bin" else save_file(
                part, folder / file, {"format": "pt"}
            )
        index = {"metadata": {}, "weight_map": {key: file for file, held in shards.items() for key in held}}
        (folder / f"{name}{suffix}.index.json").write_text(json.dumps(index))
    expected = load_reward_model(model_uri, "float32")
    loaded = load_reward_model(uri, "float32")
    for name, parameter in expected.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    for name, buffer in expected.named_buffers():
        assert torch.equal(loaded.get_buffer(name), buffer), name
    assert loaded.config.num_labels == 1


@pytest.mark.parametrize("missing", ["out_proj.bias", "gpt_neox.layers.1.attention.query_key_value.weight"])
def test_a_missing_weight_is_named_and_never_made_up(
    missing: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    uri = write_model(tmp_path / "model", weights)
    kept = {name: tensor for name, tensor in weights.items() if name != missing}
    save_file(kept, Path(uri) / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"no fitting weights for {missing}".replace(".", r"\.")):
        load_reward_model(uri, "float32")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, ("executed", os.O_CREAT)


def test_a_pickle_that_would_run_code_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write_model(tmp_path / "model", weights)
    monkeypatch.chdir(tmp_path)
    torch.save(weights | {"x": _Payload()}, Path(uri) / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(ModelError, match="cannot load a reward model"):
        load_reward_model(uri, "float32")
    assert not Path("executed").exists()


def test_other_pooling_and_use_as_a_policy_are_refused(
    model_uri: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    uri = write_model(tmp_path / "model", weights, pooling="mean")
    save_file(weights, Path(uri) / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="\"pooling\" is 'mean'"):
        load_reward_model(uri, "float32")
    with pytest.raises(ModelError, match="is a reward model, not a language model"):
        load_policy(model_uri, "float32")


def test_it_grades_and_it_evaluates(model_uri: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    grader = RewardModelGrader(model="x").scorer()
    spec = ScoreSpec(grader=grader, responses="all")
    folder = make_stage(tmp_path / "score", "score", spec, [SHORT, TURNS], reward_model=model_uri)
    request = json.loads((folder / "stage.json").read_bytes())
    del request["inputs"]["model"]
    (folder / "stage.json").write_text(json.dumps(request))
    assert run_stage(folder) == EXIT_SUCCEEDED
    scores = read_scores(folder / "out" / "scores.parquet")
    for sample in (SHORT, TURNS):
        assert scores[sample.id] == pytest.approx(expected_rewards(weights, sample), abs=2e-4)

    generations = tmp_path / "generations.jsonl"
    answer = SHORT.responses[0].text
    write_generations(generations, [Generation("short", "x", SHORT.prompt, answer, "reference")])
    folder = make_stage(
        tmp_path / "evaluate", "evaluate", EvaluateSpec(evaluators=(Reward(),)), [],
        generations=str(generations), reward_model=model_uri,
    )  # fmt: skip
    assert run_stage(folder) == EXIT_SUCCEEDED
    total = json.loads((folder / "out" / "results.json").read_bytes())["total"]
    assert total["reward_raw"]["value"] == pytest.approx(expected_rewards(weights, SHORT)[0], abs=2e-4)
