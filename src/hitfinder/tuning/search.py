"""The search: trials one after another or side by side, each judged fold by fold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hitfinder.settings import Settings, TreeSettings
from hitfinder.tuning.folds import TuningFold
from hitfinder.tuning.space import known_good, space_around
from hitfinder.tuning.study import FINISHED

__all__ = ["Search", "members_of", "trees_of"]

# Drawn at random, beside the known-good ones, before what was found guides the search.
AT_RANDOM = 6
# Boosted members that a trial averages. With one, the luck of its draws of rows and columns was as large as what
# settings differ by; the final model averages more, but costs more.
MEMBERS = 2


@dataclass
class Search:
    """Trials of one study, until there are enough of them or the time is up.

    What is tried next follows from the trials that have finished, the seed and nothing else. So with one worker a
    search that was killed and goes on comes to what it would have come to.
    """

    study: optuna.Study
    folds: Sequence[TuningFold]
    settings: Settings
    trials: int
    deadline: float
    progress: Callable[[str], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, workers: int) -> None:
        """Run the trials that are missing.

        Workers are threads: LightGBM works outside Python's global lock, and threads share the folds' bins.
        """
        if workers == 1:
            self._work()
            return
        # The settings that are given are what every trial is pruned by and held against: they go first, alone.
        self._work(at_most=1)
        with ThreadPoolExecutor(workers) as pool:
            working = [pool.submit(self._work) for _ in range(workers)]
            try:
                for one in working:
                    one.result()
            except BaseException:
                self.stop.set()
                raise

    def _work(self, at_most: int | None = None) -> None:
        done = 0
        while (at_most is None or done < at_most) and (asked := self._next()) is not None:
            done += 1
            trial, trees = asked
            try:
                self._play(trial, trees)
            except BaseException:
                self.stop.set()
                self.study.tell(trial, state=TrialState.FAIL)
                raise

    def _next(self) -> tuple[optuna.Trial, TreeSettings] | None:
        """Ask for a trial, and for all its settings at once: another worker's sampler must not come in between."""
        with self.lock:
            started = self.study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
            n = len(started)
            if n >= self.trials or self.stop.is_set() or (n > 0 and self._late()):
                return None
            space = space_around(self.settings.trees)
            wanted = known_good(self.settings.trees)
            tried = {trees_of(one) for one in started}
            fixed = next((trees for trees in wanted if trees not in tried), None)
            # A sampler of its own for each trial: one that went on would draw again, after a kill, what it drew before.
            seed = int(np.random.default_rng([self.settings.seed, n]).integers(2**31))
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(wanted) + AT_RANDOM)
            # One may wait already, from a call that was killed before it could ask for it.
            if fixed is not None and not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self.study.enqueue_trial({name: getattr(fixed, name) for name in space})
            trial = self.study.ask()
            trees = TreeSettings.model_validate({name: _suggest(trial, name, one) for name, one in space.items()})
            trial.set_user_attr("settings", self.settings.model_copy(update={"trees": trees}).to_dict())
            trial.set_user_attr("known_good", fixed is not None)
            self.progress(f"trial {n + 1} of {self.trials}{self._best_so_far()}")
            return trial, trees

    def _play(self, trial: optuna.Trial, trees: TreeSettings) -> None:
        """Judge one trial fold by fold, oldest first: those are the cheapest, and a bad trial ends early."""
        began = time.perf_counter()
        given = trees == self.settings.trees
        values: list[float] = []
        by_fold: list[float] = []
        for fold in self.folds:
            if by_fold and (self.stop.is_set() or (self._late() and not given)):
                # It is not counted, and is tried again when the search goes on.
                self.study.tell(trial, state=TrialState.FAIL)
                return
            of_fold = fold.value_at_k(trees, range(members_of(self.settings)))
            for value in of_fold:
                trial.report(float(value), len(values))
                values.append(float(value))
            by_fold.append(float(of_fold.mean()))
            if len(by_fold) < len(self.folds) and not given and trial.should_prune():
                break
        trial.set_user_attr("value_by_fold", by_fold)
        trial.set_user_attr("seconds", time.perf_counter() - began)
        if len(by_fold) < len(self.folds):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, float(np.mean(values)))

    def _late(self) -> bool:
        return time.monotonic() >= self.deadline

    def _best_so_far(self) -> str:
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return ""
        given = [one.value for one in complete if trees_of(one) == self.settings.trees]
        best = max(one.value for one in complete if one.value is not None)
        return f", best so far {best:.4f}" + (f" (as given {given[0]:.4f})" if given else "")


def members_of(settings: Settings) -> int:
    """Return how many boosted members a trial averages."""
    return min(MEMBERS, settings.model.seeds)


def trees_of(trial: FrozenTrial) -> TreeSettings:
    """Return the trees' settings that stand on a trial."""
    return TreeSettings(**trial.user_attrs["settings"]["trees"])


def _suggest(trial: optuna.Trial, name: str, space: BaseDistribution) -> int | float:
    if isinstance(space, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    assert isinstance(space, optuna.distributions.FloatDistribution)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
