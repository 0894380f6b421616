"""The backbone's hidden states of a batch: in one packed row where the model allows it, padded where not.

Whether a model may be packed is no list of names: the first batch of a model is preceded by a probe, a small
batch that goes through both layouts. Where the two do not agree, the padded layout is taken, in which each
response stands behind its own prompt and the model is called as transformers means it to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import TokenisedSample
from deft_engine.errors import DataError
from deft_engine.heads import output_head
from deft_engine.models import as_it_computes, core_model, positions
from deft_engine.packed_attention import CannotPack, PackedLayout, attends_packed, packed_attention

Layout = Literal["packed", "padded"]

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Of the probe: the largest difference over the largest hidden state. A prompt not seen gives about 1."""

_probed: WeakKeyDictionary[PreTrainedModel, Layout] = WeakKeyDictionary()


def predictor_states(core: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """``[targets, hidden]``: the state that predicts each response token.

    Raises:
        DataError: a sequence has more tokens than the model has positions.
    """
    if batch_layout(core, batch) == "packed":
        return _packed(core, batch)[batch.predictors]
    rows = _row_of_cell(batch)[batch.cells]
    return _padded(core, batch)[rows, batch.position_ids[batch.predictors]]


def end_states(core: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """``[batch, ranks, hidden]``: the state at each response's EOS; some other state where masked.

    Raises:
        DataError: as ``predictor_states``.
    """
    if batch_layout(core, batch) == "packed":
        return _packed(core, batch)[batch.ends]
    rows = _row_of_cell(batch).view(batch.ends.shape).clamp(min=0)
    return _padded(core, batch)[rows, batch.position_ids[batch.ends]]


def batch_layout(core: PreTrainedModel, batch: RankedBatch) -> Layout:
    """How a batch goes through a model. Within a sliding window all is seen; beyond it, packing is not exact.

    Raises:
        DataError: as ``predictor_states``.
    """
    limit = positions(core)
    if batch.longest > limit:
        raise DataError(
            f"a sample has {batch.longest} tokens; the model has {limit} positions",
            hint=f"set training.max_length to {limit} at most",
        )
    if not _within_window(core, batch.longest):
        return "padded"
    if core.training and any(getattr(part, "gradient_checkpointing", False) for part in core.modules()):
        return "packed" if attends_packed(core) else "padded"  # see ``gradient_checkpointing``
    return model_layout(core)


def model_layout(core: PreTrainedModel) -> Layout:
    """The layout of a model's batches, found by the probe once per model."""
    if core not in _probed:
        _probed[core] = _probe(core)
    return _probed[core]


@contextmanager
def gradient_checkpointing(model: PreTrainedModel, longest: int) -> Iterator[None]:
    """Within it, a model in training computes its layers again in the backward pass.

    The layers are then run outside of the forward pass, so where batches may be packed the packed attention
    stays on all the time.

    Args:
        model: A model or its LoRA wrapping.
        longest: Tokens of the longest sequence that will come.
    """
    core = core_model(model)
    packable = model_layout(core) == "packed" and _within_window(core, longest)
    if core.get_output_embeddings() is not None:
        output_head(core)  # its check runs the model as it is
    core.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        with packed_attention(core) if packable else nullcontext():
            yield
    finally:
        core.gradient_checkpointing_disable()


def _within_window(core: PreTrainedModel, longest: int) -> bool:
    window = getattr(core.config.get_text_config(), "sliding_window", None)
    return window is None or longest <= window


def _probe(core: PreTrainedModel) -> Layout:
    embeddings = core.get_input_embeddings().weight
    token = min(60, embeddings.shape[0]) - 3

    def ids(start: int, count: int) -> list[int]:
        return [3 + (7 * (start + index)) % token for index in range(count)]

    samples = [
        TokenisedSample("a", "", ids(0, 6), [ids(6, 5), ids(11, 3)], 0),
        TokenisedSample("b", "", ids(14, 2), [ids(16, 4), ids(20, 1), ids(21, 5)], 0),
    ]
    batch = collate(samples).to(embeddings.device)
    try:
        with as_it_computes(core):
            packed = _packed(core, batch)[batch.predictors].float()
            padded = _padded(core, batch)[
                _row_of_cell(batch)[batch.cells], batch.position_ids[batch.predictors]
            ]
    except (CannotPack, TypeError, ValueError, RuntimeError):  # or a model that cannot even be called so
        return "padded"
    difference = (packed - padded.float()).abs().max() / padded.float().abs().max()
    return "packed" if bool(difference <= _TOLERANCE[embeddings.dtype]) else "padded"


def _packed(core: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """``[tokens, hidden]`` of the packed row.

    Raises:
        CannotPack: some of the layers do not attend by the layout, or not by it alone.
    """
    layout = PackedLayout(tuple(batch.segments))
    with packed_attention(core):
        output = core.base_model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            packed_layout=layout,
        )
    layers = core.config.get_text_config().num_hidden_layers
    if layout.layers != layers:
        raise CannotPack(
            f"{layout.layers} of {layers} layers of {type(core).__name__} took the packed layout"
        )
    states: Tensor = output.last_hidden_state[0]
    return states


def _padded(core: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """``[responses, longest, hidden]``: each response behind its own prompt, padded on the right."""
    sequences: list[Tensor] = []
    for segment in batch.segments:
        start = segment.start + segment.prompt
        prompt = batch.input_ids[segment.start : start]
        for length in segment.responses:
            sequences.append(torch.cat([prompt, batch.input_ids[start : start + length]]))
            start += length
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
    output = core.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    states: Tensor = output.last_hidden_state
    return states


def _row_of_cell(batch: RankedBatch) -> Tensor:
    """``[batch * ranks]``: the row of each response in the padded layout; -1 before the first."""
    return batch.mask.flatten().long().cumsum(0) - 1
