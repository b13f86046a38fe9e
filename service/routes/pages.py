"""`/`, `/docs`, `/openapi.json`: **pages for people**, whole in themselves.

No request leaves for another host: the pages work offline and behind a firewall, and
their Content-Security-Policy lets nothing else run. `/docs` is our own page and not
Swagger UI: FastAPI's loads that from another host, the packages that carry a copy lag
behind its releases, and 1.5 MB of script would need a policy with holes.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response

from service.jsons import to_json

FOLDER = Path(__file__).parent.parent / "page"

INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def build_pages_router(app: FastAPI) -> APIRouter:
    """The three routes."""
    router = APIRouter(include_in_schema=False)
    document = Document(app)
    for path, name in (("/", "index.html"), ("/docs", "docs.html")):
        router.add_api_route(path, _page_endpoint(FOLDER / name), methods=["GET"])

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return Response(await document.body(), media_type="application/json")

    return router


class Document:
    """The bytes of an OpenAPI document, which is 0.2 s of work: once, in a thread."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._lock = asyncio.Lock()
        self._body: bytes | None = None

    async def body(self) -> bytes:
        """Built at the first call; those that come meanwhile wait for the same."""
        async with self._lock:
            if self._body is None:
                self._body = await asyncio.to_thread(
                    lambda: to_json(self._app.openapi())
                )
            return self._body


def _page_endpoint(path: Path) -> Callable[[], Awaitable[Response]]:
    """Read a page once, when the application is built."""
    html = path.read_bytes()
    headers = {
        "Content-Security-Policy": content_security_policy(html),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
    }

    async def page() -> Response:
        return Response(html, headers=headers, media_type="text/html")

    return page


def content_security_policy(html: bytes) -> str:
    """A policy that allows the page's own inline script and style and nothing else."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        hashes[kind.decode()].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
