"""transformers' Trainer with our data order, our loss and our checkpoints, on one process or several."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.training_args import OptimizerNames

from deft_engine.errors import CheckpointMismatch, SpecError, TrainingDiverged
from deft_engine.losses.output import LossOutput
from deft_engine.models import core_model, trainable
from deft_engine.sharding import deepspeed_config, keep_whole, local_part, shard_fully
from deft_engine.spec_sections import TrainingSpec
from deft_engine.training_data import BatchOrder, TrainingBatch

if TYPE_CHECKING:
    from deft_engine.training import Training

_WEIGHTS = "trainable{part}.safetensors"
_OPTIMIZER = "optimizer{part}.pt"
_DIVERGED_HINT = "lower training.learning_rate, or add training.warmup_steps; look at the rows of this batch"


class _Step(nn.Module):
    """The forward pass that Trainer wraps: a model and what is minimised, so that all of it is seen."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.model = training.model
        self.is_distributed_loading_by_transformers = training.engine == "fsdp"  # Trainer: wrap it no further
        self._objective = training.objective

    def forward(self, batch: TrainingBatch, step: int) -> LossOutput:
        """The objective's."""
        return self._objective(self.model, batch, step)


class LossTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed here
    """Trainer with our data order, our loss and our checkpoints; it reports and saves nothing by itself."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the samples of the whole accumulated batch

    def __init__(self, training: Training) -> None:
        self.training = training
        self.order = BatchOrder(len(training.data), training.spec)
        step = _Step(training)
        if training.engine == "fsdp":
            shard_fully(step, training.model)
        super().__init__(
            model=step,
            args=_arguments(training, self.order.total_steps),
            train_dataset=training.data,
            callbacks=[_Steps(self)],
        )
        self.remove_callback(PrinterCallback)
        self.last_grad_norm = math.nan

    def get_train_dataloader(self) -> Any:
        return self.training.data.loader(self.order, self.training.world)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, TrainingBatch]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, TrainingBatch]], int]:
        """This process's micro-batches of an optimiser step, and the number of samples of all processes."""
        inputs = list(islice(epoch_iterator, num_batches))
        (samples,) = self.training.world.sums([sum(each["batch"].samples for each in inputs)])
        return inputs, int(samples)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, TrainingBatch],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """This micro-batch's part of the mean loss over the step's samples.

        Every engine takes the mean of the processes' gradients, so the part is multiplied by their number.
        """
        assert num_items_in_batch is not None  # from get_batch_samples
        batch = inputs["batch"].to(self.args.device)
        step = self.state.global_step + 1
        output: LossOutput = model(batch, step)
        if not torch.isfinite(output.loss).all():
            raise _diverged("loss", step, batch)
        self.training.recorder.add(batch, {"loss": output.loss, **output.metrics})
        weight = self.training.world.size / num_items_in_batch if batch.counts else 0.0
        return output.loss.sum() * weight

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """Not counted: Trainer's estimate needs padded ids."""
        return 0.0

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm: Tensor = super()._clip_grad_norm(model)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        self.last_grad_norm = float(norm)
        if not math.isfinite(self.last_grad_norm):
            raise _diverged("gradient's norm", self.state.global_step + 1)
        return norm

    def _prepare_for_training(self, *arguments: Any) -> tuple[nn.Module, Any]:
        prepared: tuple[nn.Module, Any] = super()._prepare_for_training(*arguments)
        head = core_model(self.training.model).get_output_embeddings()
        if self.training.engine == "zero-3" and head is not None:
            keep_whole(head.weight, self.deepspeed)
        return prepared

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Trainer's, for a model that transformers did not divide: reduce with the last micro-batch."""
        step = cast(FSDPModule, self.model)
        step.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            step.set_requires_gradient_sync(True)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self._checkpoint_folder() as folder:
            self._save_rng_state(str(folder))
            if self.training.engine in ("single", "ddp", "fsdp"):
                self._save_weights(folder)
            self._save_optimizer_and_scheduler(str(folder))
            if self.training.world.first:
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    @contextmanager
    def _checkpoint_folder(self) -> Iterator[Path]:
        """The folder that all processes fill; it becomes the newest checkpoint when all have."""
        training, step = self.training, self.state.global_step
        if not training.world.first:
            training.world.barrier()
            yield training.checkpoints.unfinished(step)
            training.world.barrier()
            return
        state = {"recorder": training.recorder.state(), "objective": training.objective.state()}
        with training.checkpoints.writing(step, state) as folder:
            training.world.barrier()
            yield folder
            training.world.barrier()

    @property
    def _part(self) -> str:
        """In the name of a file that each process has its own of."""
        return f"-{self.training.world.rank}" if self.training.engine == "fsdp" else ""

    def _save_weights(self, folder: Path) -> None:
        if self._part or self.training.world.first:
            parameters = trainable(self.training.model)
            parts = {name: local_part(p.detach()).contiguous() for name, p in parameters.items()}
            save_file(parts, folder / _WEIGHTS.format(part=self._part))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._part:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
        torch.save(state, Path(output_dir) / _OPTIMIZER.format(part=self._part))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._part or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / _OPTIMIZER.format(part=self._part), weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / _WEIGHTS.format(part=self._part))
        parameters = {name: local_part(p) for name, p in trainable(self.training.model).items()}
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in saved.items()}:
            raise CheckpointMismatch(
                f"{resume_from_checkpoint}: its parameters are not those of the model",
                hint="the model's files have changed since the run began; send the job again",
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(saved[name])


class _Steps(TrainerCallback):  # type: ignore[misc]
    """What happens at the edges of epochs and optimiser steps."""

    def __init__(self, trainer: LossTrainer) -> None:
        self._trainer = trainer
        self._learning_rate = math.nan

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        order = self._trainer.order
        order.epoch = state.global_step // order.steps_per_epoch
        self._trainer.training.recorder.begin_epoch(order.epoch)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._learning_rate = kwargs["lr_scheduler"].get_last_lr()[0]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        training = self._trainer.training
        training.recorder.step(state.global_step, self._trainer.last_grad_norm, self._learning_rate)
        last = state.global_step == state.max_steps
        if last or state.global_step % self._trainer.order.steps_per_epoch == 0:
            training.end_epoch(state.global_step)
        if last:
            return
        control.should_training_stop = bool(training.stop)
        due = state.global_step % training.spec.checkpoint_every == 0
        control.should_save = due or control.should_training_stop


def _arguments(training: Training, total_steps: int) -> TrainingArguments:
    spec = training.spec
    arguments = TrainingArguments(
        output_dir=str(training.checkpoints.work),
        optim=_optimizer(spec),
        max_steps=total_steps,
        deepspeed=deepspeed_config(training.engine, spec),
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        per_device_train_batch_size=math.ceil(spec.batch_size / training.world.size),
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        # transformers' "constant" ignores warmup_steps
        lr_scheduler_type="constant_with_warmup" if spec.lr_scheduler == "constant" else spec.lr_scheduler,
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        seed=spec.seed,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else Trainer takes every GPU it sees, by DataParallel
    return arguments


def _optimizer(spec: TrainingSpec) -> OptimizerNames:
    """The Trainer's name of the optimiser.

    Raises:
        SpecError: it needs a package that is not installed.
    """
    if spec.optimizer == "adamw":
        return OptimizerNames.ADAMW_TORCH_FUSED
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SpecError(
            f"training.optimizer {spec.optimizer} needs bitsandbytes, which is not installed here",
            hint="pip install 'deft[bitsandbytes]' where training runs, or set training.optimizer to adamw",
            pointer="/training/optimizer",
        )
    return OptimizerNames.ADAMW_8BIT


def _diverged(what: str, step: int, batch: TrainingBatch | None = None) -> TrainingDiverged:
    samples = f" (samples {', '.join(batch.ranked.sample_ids)})" if batch else ""
    return TrainingDiverged(f"step {step}: the {what} is NaN or infinite{samples}", hint=_DIVERGED_HINT)
