"""`biasline.serving.http:app`: the server as an ASGI app, for whatever runs such apps.

Settings come from the environment, see `biasline.serving.server.settings`: BIASLINE_SERVE names a YAML file of them,
BIASLINE_SERVE_ALIASES and the like are single ones.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from biasline.serving.server.settings import ServerSettings


def create_app(settings: "ServerSettings | None" = None) -> "FastAPI":
    """An app, with settings of the environment where none are given.

    Raises:
        BiaslineError: for settings or keys that are wrong, and where it would listen beyond loopback without keys.
    """
    from biasline.errors import BiaslineError
    from biasline.serving.server.app import make_app
    from biasline.serving.server.keys import KEY_VARIABLE, read_keys
    from biasline.serving.server.registry import MlflowRegistry
    from biasline.serving.server.service import Service
    from biasline.serving.server.settings import read_settings
    from biasline.tracking.store import connect

    settings = settings or read_settings()
    keys = read_keys(settings.keys)
    if not settings.is_local and not len(keys) and not settings.insecure:
        raise BiaslineError(
            f"{settings.host} is reached from beyond this machine, and there are no API keys",
            f"make one (`biasline api-key NAME`) and give --keys FILE, or set {KEY_VARIABLE}; --insecure goes without",
        )
    return make_app(Service(settings, keys, MlflowRegistry(connect)))


def run(settings: "ServerSettings") -> None:
    """Listen until a signal comes; what is under way then is answered.

    Raises:
        BiaslineError: as `create_app`, and where the address cannot be listened at.
    """
    import errno
    import os
    import socket

    # Before torch is loaded: threads of its that spin while they wait take the cores from those that answer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import uvicorn

    from biasline.errors import BiaslineError
    from biasline.serving.server.logs import to_stderr

    app = create_app(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        way = "name another: --port" if error.errno == errno.EADDRINUSE else "name an address of this machine: --host"
        raise BiaslineError(f"{settings.host}:{settings.port}: {error.strerror}", way) from None
    to_stderr()
    shown = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    print(
        f"http://{shown}:{listening.getsockname()[1]} (/ready says when models are loaded, /docs what to ask)",
        flush=True,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_s)),
        timeout_keep_alive=30,
        limit_concurrency=2 * settings.waiting,
        h11_max_incomplete_event_size=65_536,
    )
    uvicorn.Server(config).run([listening])


def __getattr__(name: str) -> Any:
    """Make `app` when it is asked for: importing this module reads and starts nothing."""
    if name == "app":
        from biasline.errors import BiaslineError
        from biasline.serving.server.logs import to_stderr

        try:
            globals()["app"] = create_app()
        except BiaslineError as error:
            raise SystemExit(f"error: {error}") from None
        to_stderr(("biasline",))
        return globals()["app"]
    raise AttributeError(name)
