"""Our training step, compiled: what the benchmarks time."""

import jax
import numpy as np
from ml_collections import ConfigDict

from durian_jax.distributed import sharding
from durian_jax.training import flops
from durian_jax.training.state import init_state
from durian_jax.training.train_step import Training, TrainStep


class CompiledStep:
    """`durian train`'s step on one batch; each call takes it, a step further.

    Attributes:
      layout: of the trained parameters.
      memory: bytes of each of its programs, as XLA plans them.
      work: FLOPs of a step.
    """

    def __init__(self, config: ConfigDict, params: dict, batch: dict[str, np.ndarray]):
        """`params` are frozen or trained as the config says, the batch decides on its size."""
        config.batch_size, config.data.frames = batch["video"].shape[:2]
        training = Training.build(config, jax.devices()[:1])
        frozen = (*config.stage.frozen, *training.system.dead_parameters())
        state = init_state(params, config.stage.trainable, frozen, training.optimizer)
        self.layout = training.layout.trained
        self.state = jax.device_put(state, training.placement)
        self.batch = sharding.put_batch(batch, training.mesh)
        self.work = flops.count(training.step_function(), self.state, self.batch).model
        self.step = TrainStep(training)
        self.memory = self.step.compile()

    def __call__(self) -> np.ndarray:
        """Loss and gradient norm."""
        self.state, metrics = self.step(self.state, self.batch)
        return np.array([metrics["loss"], metrics["grad_norm"]])
