"""what steps really take → **corrected plan**, so that a time budget holds.

A few steps timed at the start know little of decoding, of a processor that grows warm,
or of other work on the machine. At some marks the rest of the training is planned again
by the pace it has had. The learning rate never jumps: it goes on from where it is, and
what is left of its curve is stretched or pressed over the steps that there is time for.
"""

import time
from dataclasses import replace

from training.loop.budget import Plan, Work, steps_within
from training.loop.timing import WARM_STEPS

# Parts of the training after which the plan is corrected: early, as most is to be
# gained there, and late, as little can go wrong after it.
MARKS = (0.02, 0.1, 0.3, 0.6, 0.9)


class Pace:
    """How the steps and looks since this start compare with what was planned."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._steps = self._looks = 0
        self._planned_s = self._looks_s = 0.0
        self._began_s = 0.0

    def step(self, plan: Plan, done: int) -> None:
        """Step number `done` is over. The first ones, which warm up, do not count."""
        self._steps += 1
        if self._steps == WARM_STEPS:
            self._began_s = time.perf_counter()
            self._looks, self._looks_s = 0, 0.0
        elif self._steps > WARM_STEPS and plan.costs:
            self._planned_s += plan.cost(plan.progress(done - 1))

    def look(self, seconds: float) -> None:
        """A look at validation took so long, with what is written after it."""
        self._looks += 1
        self._looks_s += seconds

    def is_due(self, plan: Plan, done: int) -> bool:
        """Whether step number `done` has passed a mark of a time budget."""
        if not self._planned_s or done == plan.steps:
            return False
        before, now = plan.progress(done - 1), plan.progress(done)
        return any(before < mark <= now for mark in MARKS)

    def corrected(self, plan: Plan, done: int, *, left_s: float) -> Plan:
        """The plan from step number `done` on, with `left_s` seconds to go."""
        steps_s = time.perf_counter() - self._began_s - self._looks_s
        factor = steps_s / self._planned_s
        look_s = self._looks_s / self._looks if self._looks else plan.look_s
        return stretched(plan, done, factor, look_s, self._work, left_s=left_s)


def stretched(
    plan: Plan, done: int, factor: float, look_s: float, work: Work, *, left_s: float
) -> Plan:
    """`plan` from step number `done` on, where steps take `factor` times as long."""
    costs = [(end, cost * factor) for end, cost in plan.costs]
    progress = plan.progress(done)
    steps = steps_within(left_s, costs, look_s, work, begin=progress)
    return replace(
        plan, steps=done + max(steps, 1), from_step=done, from_progress=progress
    )
