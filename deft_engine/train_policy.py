"""The stage ``train``: a policy by a method, in DEFT form where a distribution reward is given (eq 18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from transformers import set_seed

from deft_engine.data.samples import read_samples
from deft_engine.distribution import load_qdiff
from deft_engine.errors import DataError
from deft_engine.grading import read_levels
from deft_engine.heads import output_head
from deft_engine.hidden_states import model_layout
from deft_engine.logps import RankedLogps, ranked_logps
from deft_engine.lora import add_lora
from deft_engine.losses import Method
from deft_engine.losses.output import LossOutput
from deft_engine.models import core_model, device, load_policy
from deft_engine.omega import DistributionTerm, omega_for_share, share_warnings
from deft_engine.precision import autocast
from deft_engine.ranking import ranked_order
from deft_engine.run import StageContext
from deft_engine.scores import read_scores
from deft_engine.spec_sections import GradShare
from deft_engine.stages import Dtype, TrainSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.trained_model import write_trained_model
from deft_engine.training import Training
from deft_engine.training_data import (
    BatchOrder,
    RankedSample,
    TrainingBatch,
    TrainingData,
    known_rewards,
)
from deft_engine.types import Sample
from deft_engine.validation import Validation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_OMEGA_BATCHES = 4  # omega is set on so many
_SHARE_MEASUREMENTS = 20  # of a run


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """A method's loss, with the distribution term where there is one."""

    method: Method
    dtype: Dtype
    term: DistributionTerm | None

    def __call__(self, model: PreTrainedModel, batch: TrainingBatch, step: int) -> LossOutput:
        """The loss of eq 18, or the method's alone."""
        logps = self._logps(model, batch)
        base = self.method(logps)
        if self.term is None:
            return base
        return self.term.subtract_from(base, model, logps, step, float(batch.counts))

    def prepare(self, model: PreTrainedModel) -> None:
        """Try the model's layout and head while it is whole."""
        core = core_model(model)
        model_layout(core)
        output_head(core)

    def unit_share(self, model: PreTrainedModel, batch: TrainingBatch) -> float:
        """The share of the gradient that the distribution term has on a batch if omega is 1."""
        assert self.term is not None
        logps = self._logps(model, batch)
        return self.term.unit_share(self.method(logps), model, logps)

    def state(self) -> dict[str, Any]:
        """omega and the shares measured so far."""
        return {} if self.term is None else {"omega": self.term.omega, "shares": self.term.shares}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what ``state()`` gave."""
        if self.term is not None:
            self.term.omega, self.term.shares = state["omega"], list(state["shares"])

    def _logps(self, model: PreTrainedModel, batch: TrainingBatch) -> RankedLogps:
        with autocast(self.dtype):
            logps = ranked_logps(model, batch.ranked)
        if batch.reference is not None:
            logps = logps.with_reference(batch.reference)
        return logps if batch.rewards is None else logps.with_rewards(batch.rewards)


def run(context: StageContext[TrainSpec]) -> dict[str, Any]:
    """Train, and write the policy into ``model/``, with LoRA also its adapter alone into ``adapter/``.

    Raises:
        DataError: no sample is left to train on, or an artifact lacks one of the samples.
        ModelError: the model cannot be loaded, or Q_diff is another tokenizer's.
        TrainingDiverged, CheckpointMismatch, Interrupted: see ``Training.run``.
    """
    spec, uri = context.spec, context.inputs["model"]
    set_seed(spec.training.seed)  # LoRA's first weights
    tokenizer = load_tokenizer(uri)
    template = resolve_template(spec.template, uri, tokenizer)
    samples = training_samples(context)
    data = TrainingData(samples, tokenizer, template, spec.training.max_length)
    order = BatchOrder(len(data), spec.training)
    model = load_policy(uri, "float32")  # see deft_engine.precision
    if spec.lora is not None:
        model = add_lora(model, spec.lora)
    model.to(device())

    objective = PolicyObjective(spec.method, spec.dtype, _distribution_term(context, tokenizer, order))
    validation = Validation.of(context, tokenizer, template)
    training = Training.of(context, model, data, objective, validation)
    if training.resumed:
        objective.restore(training.resumed.state["objective"])
    elif spec.distribution_reward:
        _set_omega(objective, spec.distribution_reward.omega, model, data, order)
    context.stop.check()
    training.run()

    recorder = training.recorder
    term = objective.term
    warnings = share_warnings(term.omega, term.shares) if term else []
    for warning in warnings:
        context.events.log(warning, "warning")
    layout = model_layout(core_model(model))
    best = validation.best() if validation else None
    result = recorder.result() | {
        "omega": term.omega if term else None,
        "grad_share": term.mean_share if term else None,
        "r_dis_first": recorder.first.get("deft/r_dis"),
        "r_dis_last": recorder.last.get("deft/r_dis"),
        "layout": layout,
        "validation": asdict(best) if best else None,
        "warnings": warnings,
    }
    write_trained_model(context, model, tokenizer, "policy", template, samples, result)
    return result


def training_samples(context: StageContext[TrainSpec]) -> list[RankedSample]:
    """The samples of the levels asked for, best response first, with what else the method needs of them.

    Of the responses only those are kept that the loss or the distribution reward looks at. Rewards are the
    grader's, or without grading the file's.

    Raises:
        DataError: no sample is left, an artifact lacks one of them, or a reward that is needed is missing.
    """
    spec = context.spec
    levels = read_levels(context.path("levels")) if spec.levels else {}
    scores = read_scores(context.path("scores")) if "scores" in context.inputs else None
    references = _read_reference(context.path("reference")) if "reference" in context.inputs else None
    needs_all = spec.distribution_reward is not None and spec.distribution_reward.on == "all"
    ranked: list[RankedSample] = []
    for sample in read_samples(context.path("samples")):
        if spec.levels and levels[sample.id] not in spec.levels:
            continue
        rewards = [r.reward for r in sample.responses] if scores is None else scores.get(sample.id, [])
        known = known_rewards(sample, rewards) if spec.method.needs_rewards else None
        order = ranked_order(rewards, len(sample.responses), spec.rank_by)
        needed = tuple(order if needs_all else spec.method.needed(order))
        reference = None if references is None else _reference_of(sample, references, needed)
        in_order = None if known is None else tuple(known[index] for index in needed)
        ranked.append(RankedSample(sample, needed, reference, in_order))
    if not ranked:
        of_levels = f" of level {' or '.join(spec.levels)}" if spec.levels else ""
        raise DataError(
            f"no sample{of_levels} is left to train on",
            hint="raise deft.a, name more deft.levels, or add data",
        )
    return ranked


def _read_reference(path: Path) -> dict[str, dict[int, float]]:
    """Sample id -> rank as annotated -> log-probability."""
    found: dict[str, dict[int, float]] = {}
    with pq.ParquetFile(path) as file:
        for rows in file.iter_batches(columns=["sample_id", "rank", "logp"], use_threads=False):
            columns = (rows.column(name).to_pylist() for name in ("sample_id", "rank", "logp"))
            for sample_id, rank, logp in zip(*columns, strict=True):
                found.setdefault(sample_id, {})[rank] = logp
    return found


def _reference_of(
    sample: Sample, references: Mapping[str, Mapping[int, float]], order: Sequence[int]
) -> tuple[float, ...]:
    try:
        return tuple(references[sample.id][index] for index in order)
    except KeyError as error:
        raise DataError(
            f"sample {sample.id} (line {sample.line}): the reference log-probabilities lack it or a response",
            hint="reference.parquet is of other data; send the job again with ?reuse=false",
        ) from error


def _distribution_term(
    context: StageContext[TrainSpec], tokenizer: PreTrainedTokenizerBase, order: BatchOrder
) -> DistributionTerm | None:
    """The distribution term with omega still to be set."""
    reward = context.spec.distribution_reward
    if reward is None:
        return None
    q_diff = load_qdiff(context.path("qdiff"), tokenizer_sha256(tokenizer)).scaled(reward.scale)
    share = reward.omega if isinstance(reward.omega, GradShare) else None
    return DistributionTerm(
        q_diff=torch.from_numpy(q_diff).to(device(), torch.float32),
        scale=reward.scale,
        on=reward.on,
        held_share=share.grad_share if share and share.hold else None,
        omega=0.0,
        measure_every=max(1, order.total_steps // _SHARE_MEASUREMENTS),
        world=context.world,
    )


def _set_omega(
    objective: PolicyObjective,
    omega: float | GradShare,
    model: PreTrainedModel,
    data: TrainingData,
    order: BatchOrder,
) -> None:
    """Take omega as given, or measure it on the first batches, before any update and without dropout."""
    assert objective.term is not None
    if isinstance(omega, GradShare):
        batches = [data.batch(indices).to(device()) for indices in islice(order, _OMEGA_BATCHES)]
        model.eval()
        unit_shares = [objective.unit_share(model, batch) for batch in batches]
        omega = omega_for_share(omega.grad_share, unit_shares)
    objective.term.omega = omega
