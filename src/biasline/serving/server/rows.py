"""Rows of any kind of task: labels, scores and spans in vLLM's form, and MLflow's own."""

import csv
import io
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from biasline.kinds.answering import find_answering
from biasline.serving.engine.stand_in import drawing
from biasline.serving.predictor import Predictor
from biasline.serving.server.forms import ClassifyForm, FeedbackForm, InvocationForm
from biasline.serving.server.served import Asked
from biasline.serving.server.service import Call, Refused, Service
from biasline.serving.server.traffic import NotKept
from biasline.serving.traffic import plain_id


async def classify(service: Service, request: Request) -> Response:
    """POST /v1/classify."""
    with ExitStack() as stack:
        call = stack.enter_context(service.call(request))
        form = await service.form(request, ClassifyForm)
        asked = stack.enter_context(service.using(call, form.model))
        task = asked.served.held.package.task
        answering = find_answering(task.kind)
        if not answering.learning.headed:
            raise Refused(400, "invalid_request", f"{asked.name} writes texts: ask /v1/chat/completions")
        records = _owned(service, call, asked, form.records(answering.learning.columns.given[0]))

        def ask(predictor: Predictor) -> list[Any]:
            with predictor.asked(predictor.owners(records)):
                return answering.answer_whole(predictor, records)

        answers, owners = await _answered(service, call, request, asked, records, ask)
        tokens = call.ticket.prompt_tokens
        data = [{"index": number, **answer} for number, answer in enumerate(answers)]
        if len(set(owners)) > 1:
            data = [{**one, "delta": asked.served.delta_of(owner)} for one, owner in zip(data, owners, strict=True)]
        told = {
            "id": f"classify-{call.id}",
            "object": "list",
            "created": int(time.time()),
            "model": form.model,
            "system_fingerprint": asked.system_fingerprint,
            "data": data,
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
        }
        return JSONResponse(told, headers=call.headers | asked.served.headers_of_rows(owners))


async def invocations(service: Service, request: Request) -> Response:
    """POST /invocations, and with the model's name behind it where several are served."""
    with ExitStack() as stack:
        call = stack.enter_context(service.call(request))
        table = request.headers.get("content-type", "").partition(";")[0].strip() == "text/csv"
        form = InvocationForm() if table else await service.form(request, InvocationForm)
        rows = _csv(await service.body(request)) if table else None
        names = [request.path_params.get("model"), request.query_params.get("model"), form.model]
        named = list(dict.fromkeys(filter(None, names)))
        if len(named) > 1:
            raise Refused(400, "invalid_request", f"two models are named: {named[0][:80]!r} and {named[1][:80]!r}")
        name = named[0] if named else ""
        asked = stack.enter_context(service.using(call, name or _only(service, call)))
        if asked.is_base:
            raise Refused(400, "invalid_request", f"{asked.name} knows no task: ask /v1/completions")
        answering = find_answering(asked.served.held.package.task.kind)
        first = answering.learning.columns.given[0]
        records = _owned(service, call, asked, form.records(first) if rows is None else rows)
        params = form.params
        if params and answering.learning.headed:
            raise Refused(400, "invalid_request", f"params: {asked.name} has none")

        def ask(predictor: Predictor) -> list[Any]:
            seed = 0 if answering.learning.headed else predictor.settings(params).seed
            with drawing(seed):
                return predictor(records, params)

        answers, owners = await _answered(service, call, request, asked, records, ask)
        told = {"predictions": answers}
        if len(set(owners)) > 1:
            told["deltas"] = [asked.served.delta_of(owner) for owner in owners]
        return JSONResponse(told, headers=call.headers | asked.served.headers_of_rows(owners))


async def feedback(service: Service, request: Request) -> Response:
    """POST /v1/feedback."""
    with ExitStack() as stack:
        call = stack.enter_context(service.call(request))
        form = await service.form(request, FeedbackForm)
        asked = stack.enter_context(service.using(call, form.model))
        if asked.is_base:
            raise Refused(400, "invalid_request", f"{asked.name} knows no task: nobody trains on its answers")
        if asked.served.held.tenants is not None and not asked.tenant:
            raise Refused(400, "invalid_request", f"{asked.name} is a fleet: name a tenant, `{asked.name}/TENANT`")
        if form.right is None and form.thumb is None:
            raise Refused(400, "invalid_request", "`right` or `thumb` was expected")
        told = {"task": asked.served.task, "tenant": asked.tenant, "request": plain_id(form.id), "index": form.index}
        told |= {"right": form.right, "thumb": form.thumb, "key": call.key.name if call.key else ""}
        try:
            await service.run(call, lambda: service.traffic.add_feedback(told))
        except NotKept as error:
            raise Refused(409, "not_kept", str(error)) from None
        return JSONResponse({"object": "feedback", "id": form.id, "index": form.index}, headers=call.headers)


async def _answered(
    service: Service,
    call: Call,
    request: Request,
    asked: Asked,
    records: list[dict[str, Any]],
    ask: Callable[[Predictor], list[Any]],
) -> tuple[list[Any], list[str]]:
    """Answers to rows, by a shadow too where there is one, and whose each row is."""
    predictor = asked.served.held.predictor
    owners = predictor.owners(records)
    answered = service.beside(call, asked, owners, records, ask)
    answers = await service.run(call, lambda: ask(predictor), request)
    answered(answers)
    call.rows = len(records)
    if service.settings.log_texts:
        call.texts = {"asked": records, "answered": answers}
    return answers, owners


def _owned(service: Service, call: Call, asked: Asked, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the tenant that the model's name has, where they name none; each one may be asked."""
    service.check_rows(len(records))
    held = asked.served.held
    if held.tenants is None:
        return records
    column = held.package.task.tenants.column
    if asked.tenant:
        named = {str(record[column]) for record in records if record.get(column) not in (None, "", asked.tenant)}
        if named:
            raise Refused(400, "invalid_request", f"rows of {min(named)!r} are asked of {asked.name}")
        records = [{**record, column: asked.tenant} for record in records]
    service.router.check_tenants(asked, held.predictor.owners(records), call.key)
    return records


def _only(service: Service, call: Call) -> str:
    """The only model that there is."""
    tasks = {served.task for _, served in service.router.names(call.key)}
    if len(tasks) > 1:
        told = "several models are served: name one, as /invocations/TASK or in `model`"
        raise Refused(400, "invalid_request", told)
    return next(iter(tasks), "")


def _csv(content: bytes) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(400, "invalid_request", f"no CSV in UTF-8: {error}") from None
