"""One loop for every loss: transformers' Trainer over packed batches, with checkpoints that resume exactly.

The loss of an optimiser step is the mean over the samples of all its micro-batches, whatever their sizes, so
that gradient accumulation equals the large batch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from deft_engine.checkpoints import Checkpoint, Checkpoints, RunIdentity
from deft_engine.errors import Interrupted
from deft_engine.hidden_states import gradient_checkpointing
from deft_engine.loss_trainer import LossTrainer
from deft_engine.losses.output import LossOutput
from deft_engine.models import core_model
from deft_engine.sharding import make_whole
from deft_engine.spec_sections import Engine, TrainingSpec
from deft_engine.training_data import BatchOrder, TrainingBatch, TrainingData
from deft_engine.training_metrics import Recorder
from deft_engine.validation import Validation
from deft_engine.world import ALONE, World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from deft_engine.run import StageContext, StopRequest
    from deft_engine.stages import TrainRewardSpec, TrainSpec


class Objective(Protocol):
    """What is minimised."""

    def prepare(self, model: PreTrainedModel) -> None:
        """Look at the whole model, once, before it is divided between processes."""

    def __call__(self, model: PreTrainedModel, batch: TrainingBatch, step: int) -> LossOutput:
        """The loss of each sample, [batch], and its metrics; ``step`` (the first is 1) is under way."""

    def state(self) -> dict[str, Any]:
        """JSON values to keep in a checkpoint."""


@dataclass(frozen=True, slots=True)
class Training:
    """All that a run is made of."""

    model: PreTrainedModel
    data: TrainingData
    spec: TrainingSpec
    objective: Objective
    recorder: Recorder
    checkpoints: Checkpoints
    resumed: Checkpoint | None
    stop: StopRequest
    engine: Engine = "single"
    world: World = ALONE
    validation: Validation | None = None
    attention: str = "sdpa"
    """How the model attends outside of training."""

    @classmethod
    def of(
        cls,
        context: StageContext[TrainSpec] | StageContext[TrainRewardSpec],
        model: PreTrainedModel,
        data: TrainingData,
        objective: Objective,
        validation: Validation | None = None,
    ) -> Training:
        """The training that a stage asks for, with the checkpoint to go on from if there is one.

        Raises:
            CheckpointMismatch: the checkpoint is of another engine, world size or spec.
        """
        spec, world = context.spec, context.world
        checkpoints = Checkpoints(context.work, RunIdentity.of(spec, spec.engine, world.size))
        if world.first:
            checkpoints.discard_unfinished()
        resumed = checkpoints.latest()
        total_steps = BatchOrder(len(data), spec.training).total_steps
        recorder = Recorder(
            context.events, total_steps, resumed.state["recorder"] if resumed else None, world
        )
        return cls(
            *(model, data, spec.training, objective, recorder, checkpoints, resumed, context.stop),
            *(spec.engine, world, validation, core_model(model).config._attn_implementation),
        )

    def run(self) -> None:
        """Train ``model`` in place, from ``resumed`` on where given.

        Raises:
            Interrupted: asked to stop; a checkpoint of the last whole step was written.
            TrainingDiverged: the loss or the gradient is NaN or infinite; the step was not made (DeepSpeed
                clips and steps in one: there a step of an infinite gradient was made, and is not kept).
            CheckpointMismatch: the checkpoint holds other parameters.
            SpecError: the optimiser's package is not installed.
        """
        self.recorder.begin(len(self.data), self.resumed.step if self.resumed else 0)
        self.objective.prepare(self.model)
        trainer = LossTrainer(self)
        with self._checkpointing():
            trainer.train(resume_from_checkpoint=str(self.resumed.folder) if self.resumed else None)
        if trainer.state.global_step < trainer.order.total_steps:
            raise Interrupted(f"stopped on request after step {trainer.state.global_step}")
        if self.engine in ("zero-3", "fsdp"):
            make_whole(self.model)
        if self.validation is not None and self.world.first:
            self.validation.restore(self.model)

    def end_epoch(self, step: int) -> None:
        """Validate the model after an epoch's last step, if this run does so; the first process does it.

        Raises:
            Interrupted: asked to stop; the run goes on from its last checkpoint.
        """
        if self.validation is None or self.stop:
            return
        if self.world.first:
            alone = self.world.size == 1  # several agree on a stop, at places that all of them pass
            interrupt = self.stop.check if alone else lambda: None
            reward = self.validation.validate(self.model, step, self.attention, interrupt)
            self.recorder.validated(step, reward)
        self.world.barrier()

    def _checkpointing(self) -> AbstractContextManager[None]:
        if not self.spec.gradient_checkpointing:
            return nullcontext()
        return gradient_checkpointing(self.model, self.spec.max_length)
