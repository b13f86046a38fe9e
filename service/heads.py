"""a head that came before → **what it says**: clients repeat theirs, byte for byte.

To parse it again takes a tenth of all that a tiny image costs. So what the parser found
in the heads of plain images is kept, for all connections of a process.
"""

import re
from typing import NamedTuple

from service.exchange import Headers

END = b"\r\n\r\n"  # the parser takes no other end of a head
MAX_HEADS = 1024
# Of one; without cookies most have 100 to 500 bytes. Short headers take thirty times
# their bytes once they are read.
MAX_KNOWN_BYTES, MAX_HEADERS = 1024, 32
# Names of headers that clients prove themselves with, also to a gateway before this
# service. A dump of the memory would show them long after the request.
CREDENTIALS = re.compile(rb"auth|cookie|jwt|key|secret|session|signature|token")


class Head(NamedTuple):
    """The head of a request for a plain image, as the parser has read it."""

    query: bytes
    headers: Headers
    body_bytes: int
    keep_alive: bool


class Heads:
    """The heads that came twice, and those that came once, in case they come again.

    When there are too many, all are forgotten: a client with a new id in each of its
    heads costs no more than that.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head | None] = {}  # None: it came once

    def find(self, head: bytes, body_bytes: int) -> Head | None:
        """A head by its bytes, if it declares a body of that length."""
        found = self._heads.get(head)
        return found if found is not None and found.body_bytes == body_bytes else None

    def learn(self, head: bytes, read: Head) -> None:
        """Keep what was read in these bytes, if they came before."""
        if len(head) > MAX_KNOWN_BYTES or len(read.headers) > MAX_HEADERS:
            return
        if any(CREDENTIALS.search(name) for name, _ in read.headers):
            return
        if len(self._heads) >= MAX_HEADS and head not in self._heads:
            self._heads.clear()
        self._heads[head] = read if head in self._heads else None
