"""The service behind the routes: who asks, which model, how long, and what it cost."""

import asyncio
import contextvars
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from biasline.errors import BiaslineError, first_line
from biasline.serving.engine.bases import Bases
from biasline.serving.engine.decoding import Decoding
from biasline.serving.engine.engine import EngineFailed, EngineStopped
from biasline.serving.engine.passes import Batching
from biasline.serving.engine.ticket import Ticket
from biasline.serving.server.follower import Follower
from biasline.serving.server.keys import ApiKey, KeyRefused, Keys
from biasline.serving.server.logs import REQUESTS
from biasline.serving.server.metrics import Figures
from biasline.serving.server.registry import Registry
from biasline.serving.server.router import NotReady, Router, UnknownModel
from biasline.serving.server.served import Asked
from biasline.serving.server.settings import ServerSettings
from biasline.serving.server.traffic import Traffic, agree
from biasline.serving.server.trials import Trials

if TYPE_CHECKING:
    from biasline.serving.predictor import Predictor

_log = logging.getLogger(__name__)
_requests = logging.getLogger(REQUESTS)
_WORKERS = 256
_TYPES = ("str", "list[", "dict[", "constrained-str")
_NOBODY = 499  # what logs say where a client went before it was answered

T = TypeVar("T")
FormT = TypeVar("FormT", bound=BaseModel)


class Refused(Exception):
    """A request that is answered by an error.

    Attributes:
        status: of HTTP.
        code: a word for programs.
        headers: of the response.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass(eq=False)
class Call:
    """A request under way.

    Attributes:
        route: its path.
        key: of whoever asks; None where there are no keys.
        ticket: how long it may take, and what it used.
        asked: the model, once it is known.
        rows: that were answered.
        reserved: tokens that its key was charged before.
        id: of the request, by which feedback names it.
        request_key: equal for requests that one version is to answer, where some are on trial.
        status: of the response.
        texts: what was asked and answered, where it is to be logged.
    """

    route: str
    key: ApiKey | None
    ticket: Ticket
    started: float = field(default_factory=time.perf_counter)
    asked: Asked | None = None
    rows: int = 0
    status: int = 200
    first_token: float = 0.0
    reserved: int = 0
    request_key: str = ""
    texts: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def headers(self) -> dict[str, str]:
        """Of the response: by what feedback on it names it."""
        return {"x-request-id": self.id}


class Service:
    """All that a server has besides its routes.

    Args:
        settings: of the server.
        keys: of whoever may ask.
        registry: where aliases are looked up.
    """

    def __init__(self, settings: ServerSettings, keys: Keys, registry: Registry) -> None:
        self.settings, self.keys = settings, keys
        self.trials = Trials.read(settings.shadow, settings.split)
        bases = Bases(
            Batching(settings.pass_tokens, settings.wait_ms / 1000),
            Decoding(settings.sequences, settings.cached_tokens, settings.pass_tokens, settings.wait_ms / 1000),
            settings.threads,
        )
        self.follower = Follower(settings, registry, bases, self.trials.places)
        self.router = Router(settings, self.trials, self.follower)
        self.figures = Figures(self.follower)
        self.traffic = Traffic(settings.traffic, settings.traffic_texts)
        self.stopping = False
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watcher of the registry", daemon=True)
        self._pool = ThreadPoolExecutor(min(_WORKERS, settings.waiting), thread_name_prefix="request")
        self._under_way = 0

    def start(self) -> None:
        """Begin to load models, and to follow their aliases."""
        self._watcher.start()

    def close(self) -> None:
        """Answer what is under way, for so long at most as settings say, and stop."""
        self.stopping = True
        self._stop.set()
        end = time.monotonic() + self.settings.drain_s
        while self._under_way and time.monotonic() < end:
            time.sleep(0.02)
        self.follower.close(max(0.0, end - time.monotonic()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.traffic.flush()

    @property
    def is_whole(self) -> bool:
        """Whether the threads that it needs run."""
        return self._watcher.is_alive() and all(base.engine.alive for base in self.follower.bases)

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.follower.refresh()
                self.traffic.flush(only_old=True)
            except Exception:  # a server goes on with what it has
                _log.exception("following the registry failed")
            self._stop.wait(self.settings.poll_s)

    @contextmanager
    def call(self, request: Request) -> Iterator[Call]:
        """The block in which a request is answered: known, counted and logged.

        Raises:
            Refused: with the status of whatever is wrong.
        """
        # The template of the path, not what somebody put into it: there are few of these.
        route = getattr(request.scope.get("route"), "path", "")
        call = Call(route, None, Ticket(self.settings.timeout_s))
        call.request_key = request.headers.get("x-request-key") or uuid.uuid4().hex
        try:
            with ExitStack() as stack:
                self._under_way += 1
                stack.callback(self._done)
                self.figures.under_way.inc()
                stack.callback(self.figures.under_way.dec)
                if self.stopping:
                    raise Refused(503, "stopping", "the server is stopping", {"retry-after": "5"})
                call.key = self.authenticated(request)
                if self._under_way > self.settings.waiting:
                    raise Refused(503, "overloaded", "too many requests at once", {"retry-after": "1"})
                stack.enter_context(self.keys.used(call.key))
                yield call
        except Refused as error:
            call.status = error.status
            raise
        except (asyncio.CancelledError, CancelledError, ClientDisconnect):
            call.status = _NOBODY
            call.ticket.cancel()
            raise
        except Exception as error:
            refused = refused_by(error)
            call.status = refused.status
            if refused.status >= 500 and refused.code == "internal":
                _log.exception("%s failed", call.route)
            raise refused from None
        finally:
            self._tell(call)

    def _done(self) -> None:
        self._under_way -= 1

    def authenticated(self, request: Request) -> ApiKey | None:
        """The key of a request; None where the server has none.

        Raises:
            Refused: for a key that is missing or not known.
        """
        if not len(self.keys):
            self._check_local(request)
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = self.keys.find(given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key"))
        if key is None:
            told = "no valid API key: send `Authorization: Bearer KEY`"
            raise Refused(401, "invalid_api_key", told, {"www-authenticate": "Bearer"})
        return key

    def _check_local(self, request: Request) -> None:
        """Without keys, only this machine is answered, whoever started the app and wherever that listens.

        The name by which it is asked counts too: a page in a browser here may be of a name that somebody else pointed
        at this machine.

        Raises:
            Refused: for a request from elsewhere.
        """
        if self.settings.insecure:
            return
        server = request.scope.get("server")  # none: a socket of the file system
        if server is not None and not (_is_local(server[0]) and _is_local(request.url.hostname or "")):
            told = "without API keys only this machine is answered, by a name of its own (127.0.0.1, localhost)"
            raise Refused(403, "forbidden", f"{told}: give the server API keys (--keys), or start it with --insecure")

    async def form(self, request: Request, form: type[FormT]) -> FormT:
        """A request's body.

        Raises:
            Refused: for one that is too large, too slow, or no such form.
        """
        content = await self.body(request)
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            # Without the names of types, where one of several was expected.
            where = ".".join(str(one) for one in first["loc"] if not str(one).startswith(_TYPES)) or "body"
            told = "not supported" if first["type"] == "extra_forbidden" else first["msg"]
            raise Refused(400, "invalid_request", f"{where}: {told}"[:500]) from None

    async def body(self, request: Request) -> bytes:
        """A request's body as it came."""
        most, parts, size = self.settings.body_bytes, [], 0
        try:
            async with asyncio.timeout(self.settings.body_s):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refused(413, "too_large", f"a body of at most {most:,} bytes is read")
                    parts.append(part)
        except TimeoutError:
            raise Refused(408, "too_slow", f"the body did not arrive within {self.settings.body_s:g} s") from None
        return b"".join(parts)

    @contextmanager
    def using(self, call: Call, name: Any) -> Iterator[Asked]:
        """The model that is asked, until the block ends."""
        if isinstance(name, str):
            name = self.trials.routed(name, call.request_key)
        with self.router.using(name, call.key) as asked:
            call.asked = asked
            yield asked

    def beside(
        self,
        call: Call,
        asked: Asked,
        tenants: Sequence[str],
        rows: Sequence[Any],
        ask: Callable[["Predictor"], Sequence[Any]] | None,
    ) -> Callable[[Sequence[Any]], None]:
        """Have a shadow answer the same rows, among those of everyone else, while they are answered.

        Args:
            call: the request.
            asked: the model that answers.
            tenants: whose each row is; none where the task is of one.
            rows: that are asked.
            ask: has a model answer them; None where no other could.

        Returns:
            what is to be called with the answers, so that both are kept where traffic is.
        """
        with ExitStack() as stack:
            shadow = stack.enter_context(self.router.using_shadow(asked)) if ask is not None else None
            held = stack.pop_all()
        served = asked.served
        told = {"request": call.id, "task": served.task}
        told |= {"version": served.version, "fingerprint": served.fingerprint}
        # A shadow is the first that is done without.
        if shadow is None or ask is None or self._under_way > self.settings.waiting // 2:
            held.close()
            return lambda answers: self.traffic.add(told, tenants, rows, answers)
        other = shadow.served
        told |= {"shadow_version": other.version, "shadow_fingerprint": other.fingerprint}

        def job() -> Sequence[Any]:
            with held, Ticket(self.settings.timeout_s).used():
                return ask(other.held.predictor)

        asking = self._pool.submit(job)
        # One that never began lets go as well.
        asking.add_done_callback(lambda done: held.close())

        def answered(answers: Sequence[Any]) -> None:
            def both(done: "Future[Sequence[Any]]") -> None:
                error = None if done.cancelled() else done.exception()
                failed = done.cancelled() or error is not None
                # A server that stops or is slow is no fault of the version; what it cannot answer is.
                unable = error is not None and not isinstance(error, TimeoutError | CancelledError | EngineStopped)
                others = None if failed else done.result()
                same = [agree(*pair) for pair in zip(answers, others or (), strict=False)]
                for said in (
                    ("failed",) if failed else ("agrees" if one else "differs" for one in same if one is not None)
                ):
                    self.figures.shadow.labels(served.task, said).inc()
                self.traffic.add(told, tenants, rows, answers, others, unable)

            asking.add_done_callback(both)

        return answered

    def check_rows(self, count: int) -> None:
        """Refuse more rows than one request may have."""
        if not 0 < count <= self.settings.rows:
            raise Refused(400, "invalid_request", f"1 to {self.settings.rows} rows were expected, got {count}")

    async def run(self, call: Call, work: Callable[[], T], request: Request | None = None) -> T:
        """Have a thread do something for a request, unless its client goes.

        Args:
            call: the request.
            work: what is to be done, by whoever waits for an engine.
            request: whose client may go; its body was read.
        """

        def job() -> T:
            with call.ticket.used():
                return work()

        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._pool, contextvars.copy_context().run, job)
        return await working if request is None else await self.unless_gone(working, call, request)

    async def unless_gone(self, work: "asyncio.Future[T]", call: Call, request: Request) -> T:
        """What comes of something, unless the client of a request goes before it does.

        Raises:
            ClientDisconnect: where it went; the request's ticket is cancelled then.
        """
        leaving = asyncio.ensure_future(_gone(request))
        try:
            waited: set[asyncio.Future[Any]] = {work, leaving}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            leaving.cancel()
            if not work.done():
                call.ticket.cancel()
                work.cancel()

    def _tell(self, call: Call) -> None:
        """Count and log a request."""
        seconds = time.perf_counter() - call.started
        asked = call.asked
        model, ticket = (asked.served.task if asked else ""), call.ticket
        self.keys.charge(call.key, ticket.prompt_tokens + ticket.completion_tokens - call.reserved)
        self.figures.requests.labels(model, call.route, str(call.status)).inc()
        if asked is not None:
            self.figures.seconds.labels(model, call.route).observe(seconds)
            self.figures.rows.labels(model).inc(call.rows)
            self.figures.tokens.labels(model, "prompt").inc(ticket.prompt_tokens)
            self.figures.tokens.labels(model, "completion").inc(ticket.completion_tokens)
            if call.first_token:
                self.figures.first.labels(model).observe(call.first_token)
        told: dict[str, Any] = {
            "route": call.route,
            "status": call.status,
            "ms": round(1000 * seconds, 1),
            "key": call.key.name if call.key else "",
            "model": asked.name if asked else "",
            "version": asked.served.version if asked else "",
            "rows": call.rows,
            "prompt_tokens": ticket.prompt_tokens,
            "completion_tokens": ticket.completion_tokens,
        }
        if self.settings.log_texts:
            told |= call.texts
        _requests.info("request", extra={"told": told})

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """From the server's start to its stop."""
        self.start()
        try:
            until = time.monotonic() + self.settings.start_s
            while not self.follower.loaded and not self.follower.away and time.monotonic() < until:
                await asyncio.sleep(0.05)
            yield
        finally:
            await asyncio.get_running_loop().run_in_executor(None, self.close)


def _is_local(host: str) -> bool:
    """Whether an address or a name is this machine's own, whatever a name server says."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def _gone(request: Request) -> None:
    """Comes back when a request's client has gone."""
    while True:
        if (await request.receive())["type"] == "http.disconnect":
            return


def refused_by(error: Exception) -> Refused:
    """What is wrong, as HTTP says it."""
    if isinstance(error, UnknownModel):
        return Refused(404, "model_not_found", str(error))
    if isinstance(error, NotReady | EngineStopped):
        return Refused(503, "not_ready", str(error), {"retry-after": "2"})
    if isinstance(error, KeyRefused):
        return Refused(429, "rate_limit_exceeded", str(error), {"retry-after": str(error.retry_s)})
    if isinstance(error, TimeoutError):
        return Refused(503, "timeout", "it took longer than this server allows", {"retry-after": "5"})
    if isinstance(error, EngineFailed):
        return Refused(500, "internal", "a pass failed; the server's log says how")
    if isinstance(error, BiaslineError | ValueError):
        return Refused(400, "invalid_request", first_line(error))
    return Refused(500, "internal", "the server failed; its log says how")
