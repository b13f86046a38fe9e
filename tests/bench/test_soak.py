"""200,000 mixed requests → flat or not, with a handful of them."""

import pytest

from bench.bodies import raw
from bench.goals import SOAKED
from bench.service import Usage, serving
from bench.soak import Soak, judge, mixture
from bench.traffic import run
from tests.synthetic import make_bundle, png


def usages(rss_mb, *, threads=8, files=20):
    """Samples with these memories."""
    return [Usage(rss, threads, files) for rss in rss_mb]


def test_memory_that_grows_is_not_flat():
    """One percent a sample adds up."""
    verdict = judge(usages([100 * 1.01**n for n in range(50)]))

    assert not verdict["flat"]


def test_memory_may_grow_while_it_warms_up():
    """The first fifth does not count; 4 % of noise after it is allowed."""
    verdict = judge(usages([50] * 10 + [100, 104, 97, 101] * 10))

    assert verdict["flat"]
    assert verdict["rss_spread"] < 0.05


@pytest.mark.parametrize("what", ["threads", "files"])
def test_a_thread_or_a_file_that_stays_is_a_leak(what):
    """Even with flat memory."""
    before = usages([100] * 30)
    after = usages([100] * 20, **{what: 60})

    assert judge(before)["no_leaks"]
    assert not judge(before + after)["no_leaks"]


def test_the_counts_beside_the_verdict_are_those_it_compared():
    """A reader can see why there is a leak, or why there is none."""
    before = [Usage(100, threads, 20) for threads in (6, 9)]  # noise, from the start
    verdict = judge(before * 20)

    assert verdict["threads"] == [9, 9]
    assert verdict["no_leaks"]


def test_the_mixture_is_whole():
    """Shares add up to one."""
    kinds = mixture([png((9, 9, 9))], [png((8, 8, 8))])

    assert sum(kind.share for kind in kinds) == pytest.approx(1)


def test_a_short_soak_of_the_real_service(tmp_path):
    """Good images are classified, broken ones refused: what the goals call due."""
    make_bundle(tmp_path, "digits")
    make_bundle(tmp_path, "imagenet")
    image = png((200, 10, 10))
    kinds = mixture([image] * 40, [image])

    with serving(tmp_path, "digits,imagenet", probe=raw(image)) as service:
        soak = Soak(service, kinds, seed=1)
        run(soak.run(200, connections=4))

    assert sum(soak.outcomes.values()) == 200
    assert soak.outcomes["raw 200"] > 100
    assert set(soak.outcomes) <= SOAKED
    assert len(soak.samples) == 50
    assert min(usage.rss_mb for usage in soak.samples) > 10
