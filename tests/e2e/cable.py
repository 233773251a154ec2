"""A cable between the browser and the Channels server, which a test can pull."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Passes bytes between a port of its own and the server's."""

    def __init__(self) -> None:
        self.server: tuple[str, int] | None = None
        self._is_plugged = True
        self._sockets: list[socket.socket] = []
        self._dead: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="cable").start()

    def pull(self) -> None:
        """End all connections, and let none through until it is plugged in again."""
        with self._lock:
            self._is_plugged = False
            for end in self._sockets:
                with contextlib.suppress(OSError):  # it has ended already
                    end.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()

    def deaden(self) -> None:
        """Pass nothing more by what is connected, and say nothing of it; what connects anew works."""
        with self._lock:
            self._dead.update(self._sockets)

    def plug_in(self) -> None:
        with self._lock:
            self._is_plugged = True

    def close(self) -> None:
        self.pull()
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):  # closed
            while True:
                self._connect(self._listener.accept()[0])

    def _connect(self, browser: socket.socket) -> None:
        with self._lock:
            if not self.server or not self._is_plugged:
                browser.close()
                return
            server = socket.create_connection(self.server)
            self._sockets += [browser, server]
        for source, sink in ((browser, server), (server, browser)):
            threading.Thread(target=self._pass, args=(source, sink), name="cable").start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with source:
            with contextlib.suppress(OSError):  # pulled
                while data := source.recv(65536):
                    if source not in self._dead:
                        sink.sendall(data)
            with contextlib.suppress(OSError):  # the other direction has ended already
                sink.shutdown(socket.SHUT_RDWR)
