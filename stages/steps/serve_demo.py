"""Step of `pipeline serve-demo`: the demo's web until it is stopped."""

import contextlib
import time

from kd3_pipeline.demo.server import DemoWeb


def run(port: int, per_query: int, seed: int, quiet: bool) -> None:
    """Serves until Ctrl-C.

    Raises:
        UserError: a port is taken.
    """
    demo = DemoWeb(per_query, seed, port=port, named=False)
    with demo as web, contextlib.suppress(KeyboardInterrupt):
        if not quiet:
            host, number = web.addresses[0]
            print(f"http://{host}:{number}/ (stop with Ctrl-C)", flush=True)
        while True:
            time.sleep(3600)
