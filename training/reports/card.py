"""manifest + evaluations → **card.md**: what a person should know before using it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from classifier.manifest import Manifest, Precision, Task
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import confusable_pairs, rankings
from training.reports.markdown import code, plain
from training.rules.temperature import COLDEST, HOTTEST

MOST_NAMES = 50  # of a thousand labels nobody reads the rest
# A bounded search only comes close.
ABOUT_HOTTEST, ABOUT_COLDEST = 0.99 * HOTTEST, 1.01 * COLDEST

CAPTIONS = {
    "confusion.png": "Confusion matrix: rows are the truth, columns the answer.",
    "mistakes.jpg": "The worst mistakes: wrong answers with the highest scores.",
    "precision-recall.png": "Precision and recall; dots are the thresholds in use.",
    "reliability.png": "Reliability: share of right answers against score; for yes/no "
    "scores, share of positives against the score for yes.",
    "risk-coverage.png": "Risk and coverage when the least sure answers are withheld.",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from."""

    manifest: Manifest
    evaluations: Mapping[Precision, Evaluation]
    remarks: tuple[str, ...]
    pictures: tuple[str, ...]


def write_card(facts: CardFacts) -> str:
    """The whole card, Markdown."""
    manifest = facts.manifest
    sections = [
        [f"# {manifest.name}, version {manifest.version}", "", manifest.description],
        list(_task(manifest)),
        list(_figures(facts)),
        list(_classes(facts)),
        list(_confusions(facts)),
        list(_pictures(facts)),
        list(_origin(facts)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _task(manifest: Manifest) -> Iterator[str]:
    spec, rules = manifest.preprocess, manifest.postprocess
    yield "## What it answers"
    yield ""
    names = listed([code(label.name) for label in manifest.labels])
    yield f"Task: {manifest.task}. Labels: {names}."
    if manifest.task is Task.FINE_GRAINED:
        groups = Counter(label.group for label in manifest.labels if label.group)
        sizes = [f"{code(group)} ({size})" for group, size in groups.items()]
        yield f"Groups, with the number of their labels: {listed(sizes)}."
    yield (
        f"Reads {spec.width}x{spec.height} {spec.color} pixels ({spec.resize}). "
        f"Temperature {rules.temperature:.3f}."
    )
    if rules.temperature >= ABOUT_HOTTEST:
        yield (
            f"That is the highest temperature tried ({HOTTEST:g}): on validation the "
            "network's answers said next to nothing of the truth."
        )
    if rules.temperature <= ABOUT_COLDEST:
        yield (
            f"That is the lowest temperature tried ({COLDEST:g}): the network's logits "
            "are much too small for what its answers know."
        )
    if rules.thresholds is not None:
        decided = manifest.labels[-len(rules.thresholds) :]
        pairs = zip(
            [code(label.name) for label in decided], rules.thresholds, strict=True
        )
        yield "Thresholds: " + ", ".join(f"{n} {t:.3f}" for n, t in pairs) + "."
    if rules.abstain_threshold is not None:
        yield f"Gives no answer under a score of {rules.abstain_threshold:.3f}."


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many there are beside."""
    more = len(names) - MOST_NAMES
    text = ", ".join(names[:MOST_NAMES])
    return f"{text} and {more} more" if more > 0 else text


def _figures(facts: CardFacts) -> Iterator[str]:
    first = next(iter(facts.evaluations.values()))
    yield f"## Measured on {first.n} images ({plain(first.dataset)}, {first.split})"
    yield ""
    yield "| figure | " + " | ".join(facts.evaluations) + " | 95 % interval (fp32) |"
    yield "| --- |" + " ---: |" * (len(facts.evaluations) + 1)
    reference = facts.evaluations.get(Precision.FP32, first)
    for name in sorted(first.metrics):
        values = [e.metrics.get(name) for e in facts.evaluations.values()]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        low, high = reference.intervals.get(name, (None, None))
        interval = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
        yield f"| {name} | {' | '.join(cells)} | {interval} |"
    for variant in facts.manifest.graphs:
        if variant.gate is not None:
            yield ""
            yield f"Gate of {variant.precision}: {variant.gate.reason}."
    if Precision.FP16 in facts.evaluations:
        yield ""
        yield (
            "The figures of fp16 were computed on a CPU, in fp32 arithmetic: what fp16 "
            "arithmetic changes on a GPU is not in them."
        )


def _classes(facts: CardFacts) -> Iterator[str]:
    """A row a class; what int8 changes for each stands in the last column."""
    reference = facts.evaluations[Precision.FP32]
    small = facts.evaluations.get(Precision.INT8)
    multi = facts.manifest.task is Task.MULTILABEL
    ranked = rankings(reference.scores, reference.truth) if multi else []
    yield "## By class"
    yield ""
    head = ["label", "images", "precision", "recall", "F1"]
    head += ["average precision"] * multi + ["int8 recall, change"] * (
        small is not None
    )
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for k, row in enumerate(reference.rows):
        numbers = [row.precision, row.recall, row.f1]
        numbers += [ranked[k].average_precision()] if multi else []
        cells = ["" if value is None else f"{value:.3f}" for value in numbers]
        if small is not None:
            cells.append(_change(row.recall, small.rows[k].recall))
        cells = [plain(reference.labels[k]), str(row.n), *cells]
        yield "| " + " | ".join(cells) + " |"


def _change(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{after - before:+.3f}"


def _confusions(facts: CardFacts) -> Iterator[str]:
    reference = facts.evaluations[Precision.FP32]
    if reference.thresholds is not None:
        return
    pairs = confusable_pairs(reference.scores, reference.truth)
    if not pairs:
        return
    labels = facts.manifest.labels
    yield "## Most often mixed up"
    yield ""
    for pair in pairs:
        a, b = labels[pair.a], labels[pair.b]
        within = " (same group)" if a.group and a.group == b.group else ""
        first, second = code(a.name), code(b.name)
        yield (
            f"- {first} and {second}{within}: {pair.a_as_b} called {second}, "
            f"{pair.b_as_a} called {first}; {100 * pair.share:.1f} % of both"
        )


def _pictures(facts: CardFacts) -> Iterator[str]:
    for name in facts.pictures:
        yield f"![{CAPTIONS[name]}]({name})"
        yield ""


def _origin(facts: CardFacts) -> Iterator[str]:
    origin = facts.manifest.provenance
    yield "## Where it comes from"
    yield ""
    yield f"- Made by: {code(origin.command)}"
    yield f"- Data: {origin.source}"
    yield f"- Licence: {origin.license}"
    yield f"- Hardware: {origin.hardware}; {origin.seconds:.0f} s of training"
    yield f"- Commit: {origin.commit or 'none'}; created {origin.created}"
    for step in origin.optimizations:
        yield (
            f"- Optimized from version {step.version}, by {code(step.command)}; "
            f"commit {step.commit or 'none'}; {step.hardware}; {step.created}"
        )
    for remark in facts.remarks:
        yield f"- {remark}"
