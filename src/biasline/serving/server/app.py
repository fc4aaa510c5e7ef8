"""The app: routes, how errors look, and what operators ask."""

import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from biasline.kinds.learning import find_learning
from biasline.serving.server import rows, texts
from biasline.serving.server.forms import ChatForm, ClassifyForm, CompletionForm, FeedbackForm, InvocationForm
from biasline.serving.server.keys import ApiKey
from biasline.serving.server.reference import reference_page
from biasline.serving.server.served import Served
from biasline.serving.server.service import Refused, Service

Route = Callable[[Service, Request], Awaitable[Response]]
_POSTED: tuple[tuple[str, Route, type[BaseModel], str], ...] = (
    ("/v1/chat/completions", texts.chat, ChatForm, "Answer a dialogue (OpenAI's form)."),
    ("/v1/completions", texts.completions, CompletionForm, "Go on from a text, without a template (OpenAI's form)."),
    ("/v1/classify", rows.classify, ClassifyForm, "Labels, scores or spans of texts (vLLM's form)."),
    ("/classify", rows.classify, ClassifyForm, "As /v1/classify."),
    ("/v1/feedback", rows.feedback, FeedbackForm, "Say that an answer was right, or what would have been."),
    ("/invocations", rows.invocations, InvocationForm, "Rows of any kind of task (MLflow's form)."),
    ("/invocations/{model:path}", rows.invocations, InvocationForm, "As /invocations, of a model by its name."),
)


def make_app(service: Service) -> FastAPI:
    """The app of a service."""
    app = FastAPI(
        title="Biasline",
        version=version("biasline"),
        description="One base in memory, and every model's biases behind it.",
        lifespan=service.lifespan,
        # FastAPI's own pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for path, route, form, told in _POSTED:
        schema = {"required": True, "content": {"application/json": {"schema": _schema(form)}}}
        app.post(path, summary=told, openapi_extra={"requestBody": schema}, response_model=None)(_bound(service, route))
    for path, asked, told in (
        ("/v1/models", _models, "What may be asked."),
        ("/v1/models/{model:path}", _model, "One model: version, training, delta, base, outputs."),
        ("/health", _health, "Whether the process is whole."),
        ("/ping", _health, "As /health."),
        ("/ready", _ready, "Whether models are served, and which are not."),
        ("/version", _version, "Of this server."),
        ("/metrics", _metrics, "Figures for Prometheus."),
    ):
        app.get(path, summary=told, response_model=None)(_bound(service, asked))
    app.get("/docs", include_in_schema=False)(lambda: HTMLResponse(reference_page(app.openapi())))
    app.add_exception_handler(Refused, _told)
    app.add_exception_handler(HTTPException, _told_http)
    app.add_exception_handler(ClientDisconnect, _told_nobody)
    return app


def _bound(service: Service, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await route(service, request)

    answer.__name__ = route.__name__.strip("_")
    return answer


def _schema(form: type[BaseModel]) -> dict[str, Any]:
    """A form's schema with its parts in place, as OpenAPI wants it where nothing else defines them."""
    schema = form.model_json_schema()
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            if name := str(value.get("$ref", "")).removeprefix("#/$defs/"):
                return put(parts[name])
            return {key: put(one) for key, one in value.items()}
        return [put(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = put(schema)
    return found


async def _models(service: Service, request: Request) -> Response:
    key = service.authenticated(request)
    data = [_about(name, served) for name, served in service.router.names(key)]
    return JSONResponse({"object": "list", "data": data})


async def _model(service: Service, request: Request) -> Response:
    name = request.path_params["model"]
    with service.call(request) as call, service.using(call, name) as asked:
        served = asked.served
        task, told = served.held.package.task, served.held.package.delta.manifest
        more = {
            "kind": task.kind,
            "labels": list(told.labels),
            "system_fingerprint": asked.system_fingerprint,
            "columns": list(find_learning(task.kind).columns.given),
        }
        return JSONResponse({**_about(name, served, asked.tenant), **more}, headers=served.headers(asked.tenant))


def _about(name: str, served: Served, tenant: str = "") -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(served.since),
        "owned_by": "biasline",
        "root": served.held.package.pin.name,
        "version": served.version,
        "fingerprint": served.fingerprint,
        "delta_sha256": served.delta_of(tenant or name.partition("/")[2]),
        "base_sha256": served.base,
    }


async def _health(service: Service, request: Request) -> Response:
    if service.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ok"}, 200) if service.is_whole else JSONResponse({"status": "broken"}, 503)


async def _ready(service: Service, request: Request) -> Response:
    follower = service.follower
    ready = follower.loaded and len(follower.served) > 0 and service.is_whole and not service.stopping
    told: dict[str, Any] = {"ready": ready}
    if _sees_all(service, request):
        told["models"] = {f"{task}@{alias}": served.version for task, alias, served in follower.served}
        told["problems"] = {f"{task}@{alias}": problem for (task, alias), problem in follower.problems.items()}
        told["registry_age_s"] = round(time.time() - follower.heard, 1) if follower.heard else None
        if follower.away:
            told["registry"] = f"does not answer: {follower.away}"
    return JSONResponse(told, 200 if ready else 503, headers={} if ready else {"retry-after": "2"})


async def _version(service: Service, request: Request) -> Response:
    return JSONResponse({"version": version("biasline")})


async def _metrics(service: Service, request: Request) -> Response:
    if not _sees_all(service, request):
        service.authenticated(request)
        raise Refused(403, "forbidden", "figures are told to a key that may ask every model (models: ['*'])")
    return PlainTextResponse(generate_latest(service.figures.registry), media_type=CONTENT_TYPE_LATEST)


def _sees_all(service: Service, request: Request) -> bool:
    try:
        key: ApiKey | None = service.authenticated(request)
    except Refused:
        return False
    return key is None or key.is_whole


async def _told(request: Request, error: Exception) -> Response:
    """An error as OpenAI's clients read it, or MLflow's."""
    assert isinstance(error, Refused)
    return _shaped(request, error.status, error.code, str(error), error.headers)


async def _told_http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: a path, or a method."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return _shaped(request, error.status_code, code, str(error.detail), dict(error.headers or {}))


async def _told_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def _shaped(request: Request, status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    if request.scope["path"].startswith("/invocations"):
        word = {404: "RESOURCE_DOES_NOT_EXIST", 401: "UNAUTHENTICATED", 429: "REQUEST_LIMIT_EXCEEDED"}.get(
            status, "INVALID_PARAMETER_VALUE" if status < 500 else "INTERNAL_ERROR"
        )
        return JSONResponse({"error_code": word, "message": message}, status, headers=headers)
    kind = "invalid_request_error" if status < 500 else "server_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, kind)
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers=headers
    )
