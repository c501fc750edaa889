"""Optuna's samplers, built anew for every trial so that a restart repeats no proposal."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from service.tuning.distributions import distribution
from studies.errors import InvalidInput
from studies.spec import StudySpec


def build(spec: StudySpec, number: int) -> BaseSampler:
    """Returns the study's sampler for the trial of this number.

    Invariant: it depends on the study and the number only (and on what the sampler is shown), so
    a server that was restarted goes on where the other stopped instead of proposing again.
    """
    seed = sampler_seed(spec.sampler.seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match spec.sampler.kind:
            case "tpe":
                return TPESampler(
                    seed=seed,
                    n_startup_trials=spec.sampler.startup_trials,
                    multivariate=True,
                    group=spec.space.conditional,
                )
            case "qmc":
                return _NumberedQmc(spec, number)
            case _:  # random; grid brings its points with it and samples what a person left out
                return RandomSampler(seed=seed)


def sampler_seed(study_seed: int, number: int) -> int:
    """Returns a trial's sampler seed [0, 2**32), by SHA-256 of the study's seed and the number."""
    digest = hashlib.sha256(f"lmtune sampler {study_seed} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def check(spec: StudySpec) -> None:
    """Raises InvalidInput where the sampler needs a package that is not installed."""
    if spec.sampler.kind == "qmc" and importlib.util.find_spec("scipy") is None:
        remedy = "pip install 'lmtune[samplers]' on the server, or choose tpe or random"
        raise InvalidInput.of("sampler.kind", "qmc needs scipy", remedy)


class _NumberedQmc(QMCSampler):
    """Optuna's scrambled Sobol sampler whose point is the trial's number, not a counter.

    Optuna counts the points in the storage; our storage is in memory, and a number that outlives
    it is at hand. Parameters under a condition are sampled apart, at random.
    """

    def __init__(self, spec: StudySpec, number: int) -> None:
        super().__init__(
            seed=sampler_seed(spec.sampler.seed, -1),
            scramble=True,
            independent_sampler=RandomSampler(sampler_seed(spec.sampler.seed, number)),
            warn_independent_sampling=False,
        )
        self._number = number
        self._space = {p.name: distribution(p) for p in spec.space if not p.when}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns every parameter without a condition."""
        return self._space

    def _find_sample_id(self, study: Study, search_space: Mapping[str, BaseDistribution]) -> int:
        return self._number
