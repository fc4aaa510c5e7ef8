"""The server as a deployment of Ray Serve: as many replicas as there is to do, on as many machines as there are.

`pip install '.[ray]'`, then `serve run examples.serve.ray_app:app` (or a Serve config file on a cluster). Each
replica is the whole server: it reads the registry itself, holds each base once, and shares nothing with the others, so
that a moved alias is served by all of them within `poll_s`. Settings come from `BIASLINE_SERVE`, as for any other ASGI
server, in the environment of the replicas.
"""

from typing import Any

from ray import serve

from biasline.serving.server.settings import read_settings

# Requests that a replica has at once before Ray sends others elsewhere; half of that is what it scales by.
AT_ONCE = 64


def build() -> Any:
    """The app of a replica. A start ends when models are loaded, so that no request comes to one that has none."""
    from biasline.serving.http import create_app

    settings = read_settings()
    waits = {} if "start_s" in settings.model_fields_set else {"start_s": 600.0}
    return create_app(settings.model_copy(update=waits))


@serve.deployment(
    name="biasline",
    max_ongoing_requests=AT_ONCE,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": AT_ONCE // 2},
    ray_actor_options={"num_cpus": 2},
    health_check_period_s=10,
    graceful_shutdown_timeout_s=60,
)
@serve.ingress(build)
class Biasline:
    """One server of champions."""


app = Biasline.bind()
