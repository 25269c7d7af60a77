"""HAProxy before the replicas: Ray's flags for it, as the manifests and the README have them."""

from shlex import quote

FLAGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # After a reload HAProxy's old process keeps its callers' idle connections, and sends their next
    # request to a replica that may have gone. With Ray's defaults it tries the removed ones again
    # and again, for they look least loaded, and answers 500. So each refusal takes a server out of
    # its sight, and it tries often enough to come to one that lives.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    # Ray turns splicing on, and has no setting for it. Once HAProxy (2.8.25) has spliced a body
    # that came apart from its head, as most clients send it, it watches the caller no more: until
    # the first byte of the answer it does not see that the caller has gone, and the engine works
    # for nobody. Ray writes this value as it stands into the section that must say no.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure\n    no option splice-request",
    # Ray has a Python process read a line of each request: a tenth of what a short request costs,
    # on the same cores. HAProxy's own exporter counts by server, and our metrics by model.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Under the throughput flags Ray holds back a thousand lines of a replica's log, its warnings
    # too, however long that takes. Ours come together by themselves, see `request_log.py`.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.ingress.middlewares",
}


def main() -> None:
    """`eval "$(python -m serve_app.haproxy)"`: for a shell that starts Ray or Serve itself."""
    for name, value in FLAGS.items():
        print(f"export {name}={quote(value)}")


if __name__ == "__main__":
    main()
