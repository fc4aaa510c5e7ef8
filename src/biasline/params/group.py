"""What every group of parameters is: frozen, with unknown keys refused."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Group(BaseModel):
    """A group of parameters: frozen, unknown keys refused, defaults documented on each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _no_number_is_yes_or_no(cls, values: Any) -> Any:
        """YAML's `true` would pass as the number 1."""
        if isinstance(values, Mapping):
            for name, value in values.items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field is not None and field.annotation in (int, float, float | None):
                    raise ValueError(f"{name}: {str(value).lower()} is no number")
        return values


GroupT = TypeVar("GroupT", bound=Group)
