"""OpenAI's forms: chat and completions, whole or streamed."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing
from biasline.serving.engine.decoding import DecodingLane, Generation
from biasline.serving.engine.stand_in import drawing, failed
from biasline.serving.engine.text import TextStream
from biasline.serving.predictor import Predictor
from biasline.serving.server.forms import ChatForm, CompletionForm, Message
from biasline.serving.server.served import Asked
from biasline.serving.server.service import Call, Refused, Service, refused_by

_LATE_S = 5.0  # that a stream has to say that it took too long
_TURNS = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Written:
    """A piece of an answer; the last says why it ends: `stop` or `length`."""

    text: str
    finish: str | None = None


class Writer:
    """What writes answers: prompts go to the engine, and what comes back is told as it comes.

    Args:
        service: of the server.
        call: the request.
        asked: the model.
    """

    def __init__(self, service: Service, call: Call, asked: Asked) -> None:
        self._service, self._call, self._asked = service, call, asked
        held = asked.served.held
        if not isinstance(held.lane, DecodingLane):
            kind = held.package.task.kind
            raise Refused(400, "invalid_request", f"{asked.name} is a model of kind {kind}: ask /v1/classify")
        self._lane: DecodingLane = held.lane
        self._predictor = held.predictor
        if held.tenants is not None and not asked.tenant:
            raise Refused(400, "invalid_request", f"{asked.name} is a fleet: name a tenant, `{asked.name}/TENANT`")
        self._slot = held.slot if held.tenants is None else held.tenants.slot(asked.tenant)

    def chat_prompt(self, messages: Sequence[Message], longest: int | None) -> list[int]:
        """Tokens of a dialogue, as the task's template writes it."""
        record = self.record(messages)
        return self._checked(self._predictor.inputs([record], longest)[0]["input_ids"], longest or 0)

    def record(self, messages: Sequence[Message]) -> dict[str, Any]:
        """A dialogue as a row of the task."""
        *before, last = messages
        if last.role != "user":
            raise Refused(400, "invalid_request", f"messages: the last must be the user's, not of role {last.role}")
        history = [{"role": _TURNS[one.role], "content": one.text} for one in before]
        named = {self._predictor.task.tenants.column: self._asked.tenant} if self._asked.tenant else {}
        return {"instruction": last.text, "history": history, **named}

    def beside(self, form: ChatForm | CompletionForm, drawn: Drawing) -> Callable[[Sequence[str]], None]:
        """Have a shadow write as well, see `Service.beside`: dialogues alone, and not where texts end them."""
        tenants = [self._asked.tenant] if self._asked.tenant else []
        if not isinstance(form, ChatForm):
            rows: list[Any] = [*form.prompts]
            return self._service.beside(self._call, self._asked, tenants * len(rows), rows, None)
        record, params = self.record(form.messages), {**form.params, "seed": drawn.seed}

        def ask(predictor: Predictor) -> Sequence[Any]:
            with drawing(drawn.seed):
                return predictor([record], params)

        return self._service.beside(self._call, self._asked, tenants, [record], None if form.stops else ask)

    def raw_prompt(self, text: str, longest: int) -> list[int]:
        """Tokens of a text as it is; what is too long for an answer to follow is refused."""
        ids = list(self._predictor.tokenizer(text).input_ids)
        if not ids:
            raise Refused(400, "invalid_request", "prompt: it has no tokens")
        most = self._predictor.positions
        # A base without a limit of its own would be given whatever comes, and memory goes by the square of it.
        room = self._predictor.task.tokens.max_length if most is None else most - longest
        if len(ids) > room:
            told = f"prompt: {len(ids)} tokens, at most {room} are read before an answer of {longest}"
            raise Refused(400, "context_length_exceeded", told)
        return self._checked(ids, longest)

    def _checked(self, ids: list[int], longest: int) -> list[int]:
        """What fits into the cache if nothing else is in it."""
        most = self._service.settings.cached_tokens
        if len(ids) + longest > most:
            told = f"{len(ids)} tokens and an answer of {longest}: this server holds {most}"
            raise Refused(400, "context_length_exceeded", told)
        return ids

    def drawing(self, params: dict[str, Any]) -> Drawing:
        """How tokens are chosen: as the task's parameters say, but for what is asked for; drawn anew without a seed."""
        try:
            drawing = Drawing.of(self._predictor.settings(params))
        except BiaslineError as error:
            told = str(error).removeprefix("params: ").replace("max_new_tokens", "max_tokens")
            raise Refused(400, "invalid_request", told) from None
        if drawing.temperature > 0 and "seed" not in params:
            drawing = replace(drawing, seed=secrets.randbits(32))
        return drawing

    async def written(
        self, ids: Sequence[int], drawing: Drawing, stops: Sequence[str], strip: bool
    ) -> AsyncIterator[Written]:
        """An answer, piece by piece, with or without the white space at its ends."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[int | BaseException, bool]]()
        ends = frozenset(self._predictor.stops)

        def tell(token: int | BaseException, last: bool) -> None:
            loop.call_soon_threadsafe(told.put_nowait, (token, last))

        generation = Generation(ids, self._slot, drawing, ends, tell)
        stream, ticket = TextStream(self._predictor.tokenizer, ends, stops, strip), self._call.ticket
        ticket.prompt_tokens += len(ids)
        self._lane.ask(self._asked.name, generation)
        try:
            last = False
            while not last:
                async with asyncio.timeout(ticket.left_s):
                    token, last = await told.get()
                if isinstance(token, BaseException):
                    raise failed(token)
                ticket.completion_tokens += 1
                self._call.first_token = self._call.first_token or time.perf_counter() - self._call.started
                if text := stream.push(token):
                    yield Written(text)
                if stream.stopped:
                    break
            ended = stream.stopped or token in ends
            yield Written(stream.finish(), "stop" if ended else "length")
        finally:
            generation.cancelled = True

    async def whole(
        self, prompts: Sequence[Sequence[int]], drawing: Drawing, stops: Sequence[str], strip: bool
    ) -> list[tuple[str, str]]:
        """Answers, and why each ends; prompts of one request are drawn by seeds one after the other."""

        async def one(number: int, ids: Sequence[int]) -> tuple[str, str]:
            own = replace(drawing, seed=(drawing.seed + number) % 2**32)
            pieces = [piece async for piece in self.written(ids, own, stops, strip)]
            return "".join(piece.text for piece in pieces), pieces[-1].finish or "stop"

        tasks = [asyncio.ensure_future(one(number, ids)) for number, ids in enumerate(prompts)]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def chat(service: Service, request: Request) -> Response:
    """POST /v1/chat/completions."""
    return await _answer(service, request, ChatForm)


async def completions(service: Service, request: Request) -> Response:
    """POST /v1/completions."""
    return await _answer(service, request, CompletionForm)


async def _answer(service: Service, request: Request, form_class: type[ChatForm] | type[CompletionForm]) -> Response:
    async with AsyncExitStack() as stack:
        call = stack.enter_context(service.call(request))
        form = await service.form(request, form_class)
        asked = stack.enter_context(service.using(call, form.model))
        writer = Writer(service, call, asked)
        drawn = writer.drawing(form.params)
        if isinstance(form, ChatForm):
            if asked.is_base:
                raise Refused(400, "invalid_request", f"{asked.name} knows no dialogues: ask /v1/completions")
            messages = form.messages
            prompts = [await service.run(call, lambda: writer.chat_prompt(messages, drawn.max_new_tokens))]
        else:
            service.check_rows(len(form.prompts))
            texts, longest = form.prompts, drawn.max_new_tokens
            prompts = await service.run(call, lambda: [writer.raw_prompt(text, longest) for text in texts])
        expected = sum(len(ids) + drawn.max_new_tokens for ids in prompts)
        call.reserved = service.keys.reserve(call.key, expected)
        shape, strip = _Shape(form, asked, call.id), isinstance(form, ChatForm)
        answered = writer.beside(form, drawn)
        call.rows = len(prompts)
        if form.stream:
            if len(prompts) > 1:
                raise Refused(400, "invalid_request", "prompt: one at a time is streamed")
            pieces = writer.written(prompts[0], drawn, form.stops, strip)
            # What is held goes on until the last piece was sent.
            lines = _lines(shape, call, pieces, answered, stack.pop_all())
            headers = call.headers | asked.served.headers(asked.tenant)
            return _Stream(lines, headers, call.ticket.left_s)
        together = asyncio.ensure_future(writer.whole(prompts, drawn, form.stops, strip))
        answers = await service.unless_gone(together, call, request)
        answered([text for text, _ in answers])
        if service.settings.log_texts:
            call.texts = {"asked": form.model_dump(include={"messages", "prompt"}), "answered": answers}
        return JSONResponse(shape.whole(answers, call), headers=call.headers | asked.served.headers(asked.tenant))


class _Stream(StreamingResponse):
    """A stream that ends in time, also where its client reads nothing of it, and lets go of all that it held."""

    def __init__(self, lines: AsyncGenerator[str], headers: dict[str, str], seconds: float | None) -> None:
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._lines, self._seconds = lines, None if seconds is None else seconds + _LATE_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()  # it may stand where a piece was sent


async def _lines(
    shape: "_Shape",
    call: Call,
    pieces: AsyncIterator[Written],
    answered: Callable[[Sequence[str]], None],
    held: AsyncExitStack,
) -> AsyncGenerator[str]:
    """An answer as server-sent events."""
    async with held:
        try:
            yield _event(shape.first())
            said = []
            async for piece in pieces:
                said.append(piece.text)
                if piece.text or piece.finish:
                    yield _event(shape.piece(piece))
            answered(["".join(said)])
            if shape.counts:
                yield _event(shape.usage(call))
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status was sent long ago: the stream says it
            refused = refused_by(error)
            call.status = refused.status
            yield _event({"error": {"message": str(refused), "type": "server_error", "code": refused.code}})


def _event(told: dict[str, Any] | None) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n" if told is not None else ""


class _Shape:
    """How answers of a route look."""

    def __init__(self, form: ChatForm | CompletionForm, asked: Asked, request_id: str) -> None:
        self._chat = isinstance(form, ChatForm)
        self.counts = form.stream_options is not None and form.stream_options.include_usage
        self._asked = asked
        self._head = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{request_id}",
            "created": int(time.time()),
            "model": form.model,
            "system_fingerprint": asked.system_fingerprint,
        }

    def whole(self, answers: Sequence[tuple[str, str]], call: Call) -> dict[str, Any]:
        """All answers."""
        choices = []
        for number, (text, finish) in enumerate(answers):
            said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
            choices.append({"index": number, **said, "finish_reason": finish, "logprobs": None})
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": _usage(call)}

    def first(self) -> dict[str, Any] | None:
        """What a stream of a chat begins with."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None) if self._chat else None

    def piece(self, piece: Written) -> dict[str, Any]:
        """A piece of a stream."""
        delta = {"content": piece.text} if piece.text else {}
        return self._chunk({"delta": delta} if self._chat else {"text": piece.text}, piece.finish)

    def usage(self, call: Call) -> dict[str, Any]:
        """What a stream ends with, where it was asked for."""
        return {**self._head, "object": self._object, "choices": [], "usage": _usage(call)}

    @property
    def _object(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _chunk(self, said: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, **said, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": self._object, "choices": [choice]}


def _usage(call: Call) -> dict[str, int]:
    prompt, completion = call.ticket.prompt_tokens, call.ticket.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
