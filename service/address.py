"""listener → **one more listener** on its port, also once it is closed."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self


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

    def listener(self) -> socket.socket:
        """One more socket on it; the kernel spreads connections over all."""
        with ExitStack() as undo:
            twin = undo.enter_context(socket.socket(self.family, self.kind))
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            twin.bind(self.name)
            undo.pop_all()
        return twin
