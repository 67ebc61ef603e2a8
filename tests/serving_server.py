"""A server of the package in a thread of this process, for real clients over the loopback."""

import threading
from contextlib import contextmanager

import httpx

from ibllm_tools.serving import ServeSettings
from ibllm_tools.serving.running import make_server

PATIENCE_S = 90  # for what takes a moment, on a machine that does other things meanwhile


@contextmanager
def serving(**settings):
    """Serve at a free port; yields the address, such as `http://127.0.0.1:41234`."""
    told, ready = [], threading.Event()

    def tell(address):
        told.append(address)
        ready.set()

    server, bound = make_server(ServeSettings(port=0, **settings), tell)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S), "the server did not start"
        yield told[0]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        bound.close()
    assert not thread.is_alive()


def get(url, **options):
    """Ask with more patience than a client has by itself."""
    return httpx.get(url, **{"timeout": PATIENCE_S, **options})


def post(url, **options):
    """Ask with more patience than a client has by itself."""
    return httpx.post(url, **{"timeout": PATIENCE_S, **options})
