"""The forms of requests: OpenAI's for texts, vLLM's for labels, MLflow's for both."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Form(BaseModel):
    """A request; what is not known is refused, since it would have been meant to change the answer."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class Part(Form):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Form):
    """What was said before, and at last what is asked."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        """All that it says."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Form):
    """How an answer is streamed."""

    include_usage: bool = False
    include_obfuscation: bool = False


_Stop = Annotated[str, Field(max_length=200)]
Stop = _Stop | Annotated[list[_Stop], Field(max_length=16)]


class _Text(Form):
    """What both forms of OpenAI's have."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**32)
    stop: Stop | None = None
    n: Literal[1] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def params(self) -> dict[str, Any]:
        """Settings that take the place of the task's."""
        given = {"max_new_tokens": self.longest, "temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in {**given, "seed": self.seed}.items() if value is not None}

    @property
    def longest(self) -> int | None:
        """Most tokens of the answer."""
        return self.max_tokens


class ChatForm(_Text):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1)
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    logprobs: Literal[False] | None = None
    parallel_tool_calls: Any = None

    @property
    def longest(self) -> int | None:
        """Most tokens of the answer, by whichever name."""
        return self.max_completion_tokens or self.max_tokens


class CompletionForm(_Text):
    """POST /v1/completions: a prompt as the model reads it, without the task's template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1024)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def prompts(self) -> list[str]:
        """Each prompt."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class ClassifyForm(Form):
    """POST /v1/classify: texts, or rows with the columns of the task."""

    model: str
    input: str | list[str | dict[str, Any]]
    user: Any = None

    def records(self, first: str) -> list[dict[str, Any]]:
        """Rows, texts among them under the first column."""
        rows = [self.input] if isinstance(self.input, str) else self.input
        return [{first: row} if isinstance(row, str) else row for row in rows]


class FeedbackForm(Form):
    """POST /v1/feedback: what somebody says of an answer.

    `id` is the answer's own, or its header x-request-id; `index` that of one row of several.
    """

    model: str
    id: str = Field(pattern=r"^[0-9A-Za-z-]{1,64}$")
    index: int = Field(0, ge=0)
    right: Any = None
    thumb: Literal["up", "down"] | None = None


class InvocationForm(Form):
    """POST /invocations: MLflow's forms of a table, and the model where several are served."""

    dataframe_split: dict[str, Any] | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | None = None
    inputs: Any = None
    params: dict[str, Any] = {}
    model: str = ""

    def records(self, first: str) -> list[dict[str, Any]]:
        """The rows of whichever form was used.

        Raises:
            ValueError: where none or several were, or one has another shape.
        """
        forms = ("dataframe_split", "dataframe_records", "instances", "inputs")
        given = [name for name in forms if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(forms)} was expected, got {', '.join(given) or 'none'}")
        if self.dataframe_split is not None:
            columns, data = self.dataframe_split.get("columns"), self.dataframe_split.get("data")
            if not isinstance(columns, list) or not isinstance(data, list):
                raise ValueError("dataframe_split: `columns` and `data` were expected, a list each")
            if odd := next((row for row in data if not isinstance(row, list) or len(row) != len(columns)), None):
                raise ValueError(f"dataframe_split: a row of {len(columns)} values was expected, got {str(odd)[:60]}")
            return [dict(zip(map(str, columns), row, strict=True)) for row in data]
        rows = getattr(self, given[0])
        if isinstance(rows, dict):
            lists = {name: value if isinstance(value, list) else [value] for name, value in rows.items()}
            if len({len(value) for value in lists.values()}) > 1:
                raise ValueError("inputs: columns of one length were expected")
            return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        if not isinstance(rows, list):
            raise ValueError(f"{given[0]}: rows were expected")
        return [row if isinstance(row, dict) else {first: row} for row in rows]
