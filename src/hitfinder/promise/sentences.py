"""Promises as values: the threshold, what is promised with it, and how that is said in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from hitfinder.errors import ModelError, SettingsError
from hitfinder.promise.columns import exact

__all__ = ["ScalePromise", "StopPromise"]

WORDS = {
    "en": {
        "stop": "At most {share} % of a batch's hits are stopped in {often}; learned from {batches}.",
        "stop_nothing": "Nothing is stopped: past hits came down to a probability of 0; learned from {batches}.",
        "stop_few": "No promise: {batches} had hits, it takes {needed}.",
        "withdrawn": "Withdrawn: {n_lost_too_much} of {n_checked} batches lost more hits than promised.",
        "scale": "Where a batch has SKUs to scale, on average at most {share} % of them turn out not to be hits "
        "({sure} % sure); learned from {batches}, {n_batches_scaling} of them with SKUs to scale.",
        "scale_few": "No promise: there are only {batches}, it takes {needed}.",
        "scale_none": "No promise: {batches} don't show with {sure} % certainty that at most {share} % of scaled SKUs "
        "turn out not to be hits, whatever the threshold.",
        "often": "{part} of {whole} batches",
        "batches": "{n} past batches",
        "batch": "{n} past batch",
    },
    "zh": {
        "stop": "每 {often}，被停测的爆款不超过该批爆款的 {share}%；依据{batches}得出。",
        "stop_nothing": "不停测任何 SKU：过去有爆款的概率曾降到 0；依据{batches}得出。",
        "stop_few": "暂无承诺：{batches}出过爆款，至少需要 {needed} 批。",
        "withdrawn": "承诺已撤回：{n_checked} 批中有 {n_lost_too_much} 批停掉的爆款多于承诺。",
        "scale": "在有可放量 SKU 的批次中，平均最多有 {share}% 的放量 SKU 不是爆款（把握 {sure}%）；"
        "依据{batches}得出，其中 {n_batches_scaling} 批有可放量的 SKU。",
        "scale_few": "暂无承诺：只有{batches}，至少需要 {needed} 批。",
        "scale_none": "暂无承诺：无论门槛取多少，{batches}都不足以说明放量的 SKU 最多有 {share}% 不是爆款"
        "（把握 {sure}%）。",
        "often": "{whole} 批中有 {part} 批",
        "batches": "过去 {n} 批",
        "batch": "过去 {n} 批",
    },
}


@dataclass(frozen=True, kw_only=True)
class _Promise:
    threshold: float | None
    confidence: float
    n_batches: int
    needed: int

    @property
    def reason(self) -> str | None:
        raise NotImplementedError

    def _saying(self) -> tuple[str, float]:
        """Return the key of what is to be said, and the share that is promised."""
        raise NotImplementedError

    @property
    def holds(self) -> bool:
        """Whether something is promised."""
        return self.reason is None

    def sentence(self, language: str = "en") -> str:
        """Say in plain words, `en` or `zh`, what is promised, or why nothing is.

        Raises
        ------
        SettingsError
            For another language.

        Examples
        --------
        >>> print(StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9).sentence())
        At most 10 % of a batch's hits are stopped in 9 of 10 batches; learned from 24 past batches.
        >>> print(StopPromise(threshold=None, max_hits_lost=0.1, confidence=0.9, n_batches=6, needed=9).sentence("zh"))
        暂无承诺：过去 6 批出过爆款，至少需要 9 批。
        """
        if language not in WORDS:
            raise SettingsError(f"language: expected {' or '.join(WORDS)}, got {language!r}")
        words, odds = WORDS[language], exact(self.confidence)
        key, share = self._saying()
        # 9325 of 10000 would say less than 93.25 of 100.
        simple = odds.denominator <= 100
        part, whole = (odds.numerator, odds.denominator) if simple else (f"{self.confidence * 100:g}", 100)
        return words[key].format(
            **asdict(self),
            share=f"{share * 100:g}",
            sure=f"{self.confidence * 100:g}",
            often=words["often"].format(part=part, whole=whole),
            batches=words["batch" if self.n_batches == 1 else "batches"].format(n=self.n_batches),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises
        ------
        ModelError
            Where a key is missing or not known.
        """
        expected = [field.name for field in fields(cls)]
        if odd := sorted(set(values) ^ set(expected)):
            raise ModelError(f"{cls.__name__}: expected {', '.join(expected)}; missing or unknown: {', '.join(odd)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class StopPromise(_Promise):
    """The threshold of `stop` and what is promised with it; see `promise_stop`.

    `threshold`: stop a SKU whose score is below it, on the scale of the scores that `promise_stop` was given; None
    where there are too few batches for a promise. In `HitModel.promises` that is a place among past margins, from 0 to
    1, no probability: what to compare a margin with is in `HitModel.thresholds`.
    `n_batches`: past batches that had hits; `needed`: how many it takes. `withdrawn`: see `withdraw_promise`, with the
    batches checked until then and how many of them lost more than was promised. A withdrawn promise keeps its
    threshold for the record; whoever stops by it promises nothing, so ask `holds` first.
    """

    max_hits_lost: float
    withdrawn: bool = False
    n_checked: int = 0
    n_lost_too_much: int = 0

    @property
    def reason(self) -> str | None:
        """Why nothing is promised: `withdrawn`, `few_batches`, or None where something is."""
        return "withdrawn" if self.withdrawn else "few_batches" if self.threshold is None else None

    def _saying(self) -> tuple[str, float]:
        key = {"few_batches": "stop_few", "withdrawn": "withdrawn"}.get(self.reason or "", "stop")
        return "stop_nothing" if key == "stop" and self.threshold == 0 else key, self.max_hits_lost


@dataclass(frozen=True, kw_only=True)
class ScalePromise(_Promise):
    """The threshold of `scale` and what is promised with it; see `promise_scale`.

    `threshold`: scale a SKU whose probability is at least it; None where none is certified. `n_batches`: past batches;
    `needed`: how many that scale it takes where none of them
    scales a false SKU. `n_scaled`, `n_batches_scaling`: past SKUs at or
    above the threshold, and the batches that they are from.
    """

    max_false_scaled: float
    n_scaled: int
    n_batches_scaling: int

    @property
    def reason(self) -> str | None:
        """Why nothing is promised: `few_batches`, `none_certified`, or None where something is."""
        if self.threshold is not None:
            return None
        return "few_batches" if self.n_batches < self.needed else "none_certified"

    def _saying(self) -> tuple[str, float]:
        key = {"few_batches": "scale_few", "none_certified": "scale_none"}.get(self.reason or "", "scale")
        return key, self.max_false_scaled
