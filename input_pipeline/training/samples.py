"""How a training sample of a system is made: its options, by `config.system`.

Options are a frozen dataclass with `size`, `frames` and a method
`make(chunk, rng, donors) -> sample`, the batch contract without its batch axis and `id`.
"""

from input_pipeline.training.controlled import ControlledOptions
from input_pipeline.training.regional import RegionalOptions
from input_pipeline.training.transforms import SampleOptions
from input_pipeline.training.unmasked import UnmaskedOptions

SAMPLES = {
    "durian": SampleOptions, "animate_anyone": UnmaskedOptions, "x_portrait": ControlledOptions,
    "svp": RegionalOptions,
}  # fmt: skip
