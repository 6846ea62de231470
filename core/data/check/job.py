"""One dataset checked from its file to its report, in stages; a large one gets a sample's figures on the way."""

import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from core.data.cache import PreparedCache
from core.data.changes import fingerprint
from core.data.check.figures import SAMPLE_ROWS, choose, exact_figures, part, sampled_figures
from core.data.check.findings import RULES, merged
from core.data.check.lengths import advice
from core.data.check.reading import Progress, ReadRows, read_rows
from core.data.check.report import Report
from core.data.check.tally import TokenTally
from core.data.check.training import Training
from core.data.conversation import Dropped, Finding
from core.data.dataset import Loaded
from core.data.findings import ROWS_LISTED
from core.data.prepared import keep, key_of, prepared_from
from core.data.rendering.render import RenderedSet, Renderer
from core.data.split import in_both
from core.settings import DataSettings

SAMPLE_ABOVE_BYTES = 100_000_000


class Check:
    """A dataset on its way to a report: `reports()` does the work, the rest can be asked of another thread meanwhile.

    `read` is None until every row is read; a check that read the same file may hand its own on. `findings` and
    `dropped` are those of the newest report. What was rendered is kept in `cache` for the run that comes next.
    """

    def __init__(
        self,
        path: Path,
        settings: DataSettings,
        tokenizer: Any,
        training: Training,
        sample_above_bytes: int = SAMPLE_ABOVE_BYTES,
        progress: Progress | None = None,
        read: ReadRows | None = None,
        cache: PreparedCache | None = None,
    ) -> None:
        self.path, self.settings, self.training = path, settings, training
        self.renderer = Renderer(copy.deepcopy(tokenizer), settings)
        self.read = read
        self.findings: list[Finding] = []
        self.dropped: list[Dropped] = []
        self.train_units: list[tuple[int, int]] | None = None
        self.sample_above_bytes, self.sample_rows = sample_above_bytes, SAMPLE_ROWS
        self._progress = progress or (lambda stage, share: None)
        self._tally = TokenTally(
            self.renderer, settings, training.stops, training.embedding_rows, keep_rendered=cache is not None
        )
        self._cache, self._started, self._files = cache, time.monotonic(), fingerprint(path)

    def reports(self) -> Iterator[Report]:
        """A report when all rows are read, one when a sample of a large file is counted, the exact one at the end.

        Raises DataError where the file cannot be used.
        """
        if self.read is None:
            self.read = read_rows(self.path, self.settings, self.renderer.tokenizer, self._progress)
        read, report = self.read, self._report(self.read)
        yield report
        counted = 0
        if report.bytes > self.sample_above_bytes and report.usable > self.sample_rows:
            yield self._sampled(read, report)
            counted = self.sample_rows
        yield self._exact(read, report, counted)
        self._keep_rendered(read.loaded)

    def rows_of(self, code: str) -> Sequence[int]:
        """Every row that a finding stands in, rising."""
        of_rows = self.read.lint.hits.rows(code) if self.read else []
        return (
            of_rows or self._tally.rows_of(code) or next((each.rows for each in self.findings if each.code == code), [])
        )

    def _report(self, read: ReadRows) -> Report:
        """What is known before any token."""
        loaded = read.loaded
        self.findings, self.dropped = merged(read.findings), loaded.dropped
        return Report(
            name=loaded.name,
            bytes=loaded.bytes,
            files=[asdict(file) for file in loaded.files],
            format=loaded.format,
            evidence=loaded.evidence,
            columns=[column["name"] for column in loaded.columns],
            alternatives=list(loaded.alternatives),
            splits=loaded.splits,
            rows=loaded.rows,
            usable=len(loaded.usable),
            template=self.renderer.template.source,
            max_length=self.settings.max_length,
            train_on=self.settings.train_on,
            stage="tokens",
            progress=0.0,
            dropped=loaded.dropped,
            findings=self.findings,
        )

    def _sampled(self, read: ReadRows, report: Report) -> Report:
        """The report with figures from a sample of the rows."""
        lint, usable, seed, count = read.lint, read.loaded.usable, self.training.seed, report.usable
        chosen = choose(count, seed, self.sample_rows)
        conversations = (usable[index] for index in chosen)
        tally = TokenTally(self.renderer, self.settings, self.training.stops, self.training.embedding_rows)
        tally.take(conversations, lambda done: self._progress("tokens", done / (len(chosen) + count)))
        parted = part(lint.rows, lint.rows, lint.keys, read.loaded.held_out, self.settings, seed)
        figures = sampled_figures(tally, lint.rows[chosen], count, parted, self.settings, self.training)
        among = f" of the {len(chosen):,} checked so far"
        self.findings = merged([*read.findings, *tally.findings(advice(figures.suggestions), among)])
        share = len(chosen) / (len(chosen) + count)
        found = replace(report, findings=self.findings, figures=figures, progress=share)
        return self._with_drops(found, tally.dropped)

    def _exact(self, read: ReadRows, report: Report, counted: int) -> Report:
        """The report with every row counted; `counted` rows of a sample were before."""
        lint, tally, work = read.lint, self._tally, counted + report.usable
        tally.take(read.loaded.usable, lambda done: self._progress("tokens", (counted + done) / work))
        parted = part(tally.rows, lint.rows, lint.keys, read.loaded.held_out, self.settings, self.training.seed)
        figures = exact_figures(tally, parted, self.settings, self.training)
        units = (tally.lengths[parted.train].tolist(), tally.trained[parted.train].tolist())
        self.train_units = list(zip(*units, strict=True))
        done = self._with_drops(replace(report, stage="done", progress=1.0, figures=figures), tally.dropped)
        both = sorted(set(tally.rows[in_both(parted.keys, parted.train, parted.held)].tolist()))
        findings = [*read.findings, *tally.findings(advice(figures.suggestions))]
        if both:
            findings.append(RULES["train-and-eval"].finding("train-and-eval", both[:ROWS_LISTED], len(both)))
        if not done.usable:
            reason, _ = Counter(each.reason for each in done.dropped).most_common(1)[0]
            rows = [each.row for each in done.dropped]
            rule = RULES["nothing-usable"]
            findings.append(rule.finding("nothing-usable", rows[:ROWS_LISTED], len(rows), example=reason))
        self.findings = merged(findings)
        return replace(done, findings=self.findings)

    def _keep_rendered(self, loaded: Loaded) -> None:
        """Put the rows into the cache, unless they are too many or their files were written to meanwhile."""
        usable, self._tally.rendered = self._tally.rendered, None
        seconds = time.monotonic() - self._started
        if self._cache is None or not usable or self._files != fingerprint(self.path):
            return
        key = key_of(self.path, self.settings, self.renderer.tokenizer)
        if key is not None:
            dropped = sorted([*loaded.dropped, *self._tally.refused], key=lambda each: each.row)
            keep(self._cache, key, prepared_from(loaded, RenderedSet(loaded.rows, usable, dropped)), seconds)

    def _with_drops(self, report: Report, dropped: list[Dropped]) -> Report:
        """`report` with those rows moved from usable to dropped."""
        self.dropped = sorted([*report.dropped, *dropped], key=lambda each: each.row)
        return replace(report, usable=report.usable - len(dropped), dropped=self.dropped)
