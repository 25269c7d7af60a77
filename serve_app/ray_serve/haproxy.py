"""Ray's flags for HAProxy in front of the replicas, equal to those of the manifests."""

from pathlib import Path
from shlex import quote

# Ray copies this value into HAProxy's section of defaults, so it can add lines for which Ray has no
# setting.
_RETRY_ON = "\n    ".join(
    [
        # If a replica was killed or has ended before the first byte, another one gets the request.
        # Generating again costs time and changes nothing.
        "conn-failure empty-response",
        # HAProxy sends again only requests that it holds completely, and most clients send the
        # body of a request apart from its head.
        "option http-buffer-request",
        "timeout http-request 30s",
        # With splicing, which Ray turns on, HAProxy (2.8.25) stops watching a caller once it has
        # spliced a body that arrived apart from its head. Until the first byte of the answer it
        # does not notice a disconnect, and the engine goes on generating.
        "no option splice-request",
        # Ray's target of the log is a local port on which usually no process listens. A line for
        # each request is a fifth of HAProxy's work, and the service has a log of its requests.
        # Errors are still logged.
        "option dontlog-normal",
    ]
)

# For every server of Serve, behind HAProxy or not: uvicorn_middleware.py and http_protocol.py.
SERVERS = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": (
        "serve_app.ray_serve.uvicorn_middleware.middlewares"
    )
}

FLAGS = {
    **SERVERS,
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # After a reload HAProxy's old process keeps its callers' idle connections, and sends their next
    # request to a replica that may have gone. With Ray's defaults it tries the removed replicas
    # again and again, because they look least loaded, and answers 500. So one refusal takes a
    # replica out of its list, and it tries often enough to reach one that runs.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    "RAY_SERVE_HAPROXY_RETRY_ON": _RETRY_ON,
    # The largest request that HAProxy can send again, head and body; 16 KiB by default.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    # After a reload the old process ends after 120 s by default, with all of its streams. This is
    # above the longest answer and the longest wait for a pool's first replica (600 and 300 s).
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "960",
    # With metrics, a Python process of Ray reads a line for each request: a tenth of the CPU time
    # of a short request. HAProxy's own exporter counts by server, and the service's metrics by
    # model.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Under the throughput flags Ray holds back a thousand lines of a replica's log, warnings too,
    # however long that takes. The request log writes in batches by itself, see `request_log.py`.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}


def threads(cores: int) -> int:
    """Return how many threads HAProxy needs on a machine, at most Ray's default.

    One serves more requests than several replicas do. On two cores a second one took an eighth of
    a request's CPU time for handing work over.
    """
    return max(1, min(4, cores // 4))


def files_in(folder: Path) -> dict[str, str]:
    """Return Ray's settings for the files of its HAProxies: all of them in `folder`."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def main() -> None:
    """Print the flags for a shell that starts Ray itself: `eval "$(python -m …haproxy)"`."""
    for name, value in FLAGS.items():
        print(f"export {name}={quote(value)}")


if __name__ == "__main__":
    main()
