"""The description of a metric: a column of the report."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """One column of the table.

    title: for people. unit: "" for a plain number. better: "lower" or "higher". truth: whether it
    needs the ground truth. variant: what exactly is computed.
    """

    title: str
    unit: str
    better: str
    truth: bool
    variant: str
