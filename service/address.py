"""host and port → **address**: a bound socket, held for us alone, and more on it."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from service.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Address:
    """What a listener is bound to; it is known also once that is closed."""

    family: int
    kind: int
    name: Any  # as getsockname() has it, which differs by family

    @classmethod
    def of(cls, listener: socket.socket) -> Self:
        """The address of a socket that is bound."""
        return cls(listener.family, listener.type, listener.getsockname())

    @property
    def url(self) -> str:
        """Where a client finds it."""
        host, port = self.name[:2]
        # its colons apart from the one before the port (RFC 3986, 3.2.2)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def listener(self) -> socket.socket:
        """One more socket on it; the kernel spreads connections over all."""
        with ExitStack() as undo:
            twin = undo.enter_context(socket.socket(self.family, self.kind))
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            twin.bind(self.name)
            undo.pop_all()
        return twin

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Held against other servers that would share the port.

        Those that load are bound and do not listen, which the kernel allows to several.
        On Linux a Unix socket without a file is as wide as the port, the network
        namespace, and free again however its holder ends. Elsewhere nothing is held.

        Raises:
            OSError: another server holds it.
        """
        with ExitStack() as held:
            if sys.platform == "linux":
                holder = held.enter_context(socket.socket(socket.AF_UNIX))
                holder.bind(f"\0linnaeus {self.name}")
            yield


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that is bound and does not listen yet: nobody connects to a cold server.

    Where it may be `shared` with other processes of ours, it is first bound alone for a
    moment, so that a second server on the port is an error and not a silent partner.

    Raises:
        SettingsError: naming the address and the reason.
    """
    with ExitStack() as undo:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            if shared and port:
                bind(host, port).close()
            listener = undo.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared and hasattr(socket, "SO_REUSEPORT"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        undo.pop_all()
    return listener


def cannot_listen(host: str, port: int, error: OSError) -> SettingsError:
    """The address, and the reason."""
    return SettingsError(f"cannot listen on {host}:{port}: {error}")
