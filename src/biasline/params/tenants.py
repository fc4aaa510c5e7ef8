"""Parameters of a fleet: a task whose rows are of many tenants."""

from typing import Literal

from pydantic import Field

from biasline.params.group import Group, Share


class Tenants(Group):
    """Whose rows are whose: each tenant has a delta of its own, trained from one that they share."""

    column: str = Field("", description="a column that names the tenant of each row; empty: the task is of one")
    min_rows: int = Field(20, ge=1, description="training rows below which the shared delta serves a tenant")
    epochs: float = Field(3.0, gt=0, le=10_000, description="passes over a tenant's own rows, from the shared delta")
    min_steps: int | None = Field(
        None,
        ge=1,
        description="steps of a tenant's own training at least; by default 100 where answers are written, else 40",
    )
    batch_size: int = Field(8, ge=1, description="rows of a step of a tenant's own training")
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="peak rate of the biases in own trainings; by default that of the shared one"
    )
    evaluate_every: int = Field(10, ge=1, description="steps between looks at a tenant's validation rows")
    max_failed: Share = Field(0.1, description="share of tenants whose own training may fail before the stage does")
    shared: Literal["train", "keep"] = Field(
        "train", description="train the shared delta on all rows, or keep the champion's and train own ones alone"
    )
    unknown: Literal["error", "shared"] = Field(
        "error", description="what answers a tenant that was not trained: nothing, or the shared delta"
    )

    @property
    def many(self) -> bool:
        """Whether the task is a fleet."""
        return bool(self.column)

    @property
    def keeps_shared(self) -> bool:
        """Whether no shared delta is trained."""
        return self.many and self.shared == "keep"
