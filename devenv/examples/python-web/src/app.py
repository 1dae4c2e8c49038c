"""Serves a few pages, and tells its version."""

import signal
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from greeting import GREETING


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/version":
            body = f"{GREETING}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            super().do_GET()


def main():
    # As process 1 it gets no default action for signals.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    handler = partial(Handler, directory="/app/static")
    ThreadingHTTPServer(("", 8080), handler).serve_forever()


if __name__ == "__main__":
    main()
