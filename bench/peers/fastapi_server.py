"""Plain FastAPI: one call in the thread pool for each request, no batching.

Documented: an `async def` route that awaits the body and hands the blocking work to
Starlette's thread pool, one uvicorn process (FastAPI docs, "Concurrency and async").
Tuned: a process a core, each with its own listener (SO_REUSEPORT, because processes
that share one socket take connections unevenly), one-thread sessions, an answer built
without FastAPI's encoder, and where a request costs less than a thread hop, no thread.
"""

import multiprocessing
import signal
import socket

import orjson
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from bench.peers.arrangement import Served


def documented_app(served: Served) -> FastAPI:
    """As the documentation shows it."""
    model, app = served.load_model(), FastAPI()

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        return await run_in_threadpool(model.classify, await request.body())

    return app


def tuned_app(served: Served) -> FastAPI:
    """Answers as bytes; threads as many as cores, or none."""
    model, app = served.load_model(), FastAPI(openapi_url=None)
    limiter = CapacityLimiter(1)

    @app.post("/classify")
    async def classify(request: Request) -> Response:
        data = await request.body()
        if served.arrangement.inline:
            answer = model.classify(data)
        else:
            answer = await to_thread.run_sync(model.classify, data, limiter=limiter)
        return Response(orjson.dumps(answer), media_type="application/json")

    return app


def serve(served: Served) -> None:
    """One process with its own listener on the shared port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", served.port))
    app = tuned_app(served)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Serve as arranged until terminated."""
    served = Served.from_environment()
    if not served.arrangement.tuned:
        app = documented_app(served)
        uvicorn.run(app, host="127.0.0.1", port=served.port, log_level="warning")
        return
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=serve, args=(served,), daemon=True)
        for _ in range(served.arrangement.processes)
    ]
    for worker in workers:
        worker.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    for worker in workers:
        worker.terminate()
        worker.join()


if __name__ == "__main__":
    main()
