"""a request → **processor time**: where it is spent, beside what the work itself costs.

Throughput on a machine that others use says little; processor time says nearly the same
there as on a quiet one. A closed loop by wrk on our service, in turn with the same work
in process: milliseconds of the event loop's thread, of all other threads, and of wrk,
for each request. In-process time over their sum is the share of the limit that could be
reached if no core was ever idle.

    python -m bench.processor --workload photos --precision fp32
"""

import resource
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench import wrk
from bench.bodies import Body, raw
from bench.circumstances import write_record
from bench.ending import command
from bench.launch import descendants
from bench.model import Model
from bench.options import (
    add_models,
    add_record,
    add_workload,
    command_line,
    count,
    positive,
)
from bench.service import Service, serving
from bench.workloads import Workload, chosen_workload
from classifier.bundle import resolve
from classifier.hardware import available_cores


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor milliseconds for each request."""

    in_process: float  # decode and run, a lane a core, nothing else
    event_loop: float  # the main threads of the service
    lanes: float  # all its other threads
    client: float

    @property
    def share(self) -> float:
        """Of the limit, if no core was ever idle."""
        return self.in_process / (self.event_loop + self.lanes + self.client)


def in_process_ms(model: Model, images: Sequence[bytes], seconds: float) -> float:
    """Processor time of one image while every core decodes and runs."""
    spent: list[tuple[int, float]] = []

    def lane(first: int) -> None:
        count, began_s = 0, time.thread_time()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            model.run(model.batch([images[(first + count) % len(images)]]))
            count += 1
        spent.append((count, time.thread_time() - began_s))

    cores = available_cores()
    lanes = [
        threading.Thread(target=lane, args=(number * len(images) // cores,))
        for number in range(cores)
    ]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    return 1e3 * sum(s for _, s in spent) / sum(count for count, _ in spent)


def threads_ms(pid: int) -> dict[int, float]:
    """Thread → its processor time so far (Linux)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        on_cpu_ns = (task / "schedstat").read_text().split()[0]
        found[int(task.name)] = int(on_cpu_ns) / 1e6
    return found


def client_ms() -> float:
    """Processor time of all children that have ended: those were wrk."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (usage.ru_utime + usage.ru_stime)


def one_round(
    service: Service, model: Model, workload: Workload, seconds: float
) -> Spent:
    """In process, then over HTTP."""
    bodies: list[Body] = [raw(image) for image in workload.images]
    alone_ms = in_process_ms(model, workload.images, seconds)
    pids = [service.process.pid, *descendants(service.process.pid)]
    before, client = {pid: threads_ms(pid) for pid in pids}, client_ms()
    closed = wrk.saturate(
        bodies, service.target, connections=workload.connections, seconds=seconds
    )
    wrk.answered(closed, "the closed loop")
    loop_ms = lanes_ms = 0.0
    for pid in pids:
        for thread, had_ms in threads_ms(pid).items():
            more_ms = had_ms - before[pid].get(thread, 0.0)
            if thread == pid:
                loop_ms += more_ms
            else:
                lanes_ms += more_ms
    each = (loop_ms, lanes_ms, client_ms() - client)
    return Spent(alone_ms, *(spent_ms / closed.requests for spent_ms in each))


def measure(
    service: Service, model: Model, workload: Workload, *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Medians of some rounds."""
    one_round(service, model, workload, 1.0)
    turns = [one_round(service, model, workload, seconds) for _ in range(rounds)]
    medians = {
        field.name: statistics.median(getattr(turn, field.name) for turn in turns)
        for field in fields(Spent)
    }
    return {
        **workload.described(),
        "precision": model.precision,
        "processor_ms": medians,
        "share_of_limit": statistics.median(turn.share for turn in turns),
        "rounds": [asdict(turn) for turn in turns],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and, where asked to, write."""
    parser = command_line("bench.processor", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--seconds", type=positive, default=3.0)
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    name, probe = workload.bundle.name, raw(workload.images[0])
    bundle = resolve(workload.bundle)
    model = Model.load(bundle, precision=options.precision, threads=1)
    settings = {"LINNAEUS_PRECISION": options.precision}
    with serving(options.models, name, probe=probe, settings=settings) as service:
        table = measure(
            service, model, workload, rounds=options.rounds, seconds=options.seconds
        )
    for what, spent_ms in table["processor_ms"].items():
        print(f"{what:12} {spent_ms:8.3f} ms a request")
    print(f"share of the limit, if no core is idle: {table['share_of_limit']:.3f}")
    if options.json is not None:
        write_record(options.json, table)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
