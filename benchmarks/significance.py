"""How often `comparison/statistics.py` is wrong, and how often it finds what it says it would: simulated strategies.

    python benchmarks/significance.py
    python benchmarks/significance.py --simulations 200 --examples 245 --seeds 3

Two strategies answer the same new examples in every simulation. An example is as hard as chance makes it, mostly for
both alike; each run's true accuracy is its strategy's plus a seed's deviation; each answer is right or wrong by chance.
Prints percentages of the simulations in which p < 0.05: without a true difference, by the test and by one over the
examples alone; and with a true difference equal to `detectable`, which should be 80. That is estimated from each
simulation's own data: "found" takes the mean over the simulations as the true difference, "by own" each one's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from comparison.statistics import Difference, paired_difference

ALPHA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000, help="of each cell (default: 1000)")
    parser.add_argument("--examples", type=int, nargs="+", default=[245, 1101], help="(default: 245 1101)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5], help="runs of a strategy (default: 3 5)")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0, 0.5, 1, 2],
        help="standard deviation of the true accuracy between seeds, in points (default: 0 0.5 1 2)",
    )  # fmt: skip
    parser.add_argument("--accuracy", type=float, default=0.6, help="of the strategies, on average (default: 0.6)")
    parser.add_argument("--random-seed", type=int, default=0, help="(default: 0)")
    args = parser.parse_args()

    print(f"{args.simulations} simulations of each cell, accuracy {args.accuracy:g}")
    print("                        no difference: rejected, %     detectable             a difference: shown, %")
    print("examples  seeds  noise     test  examples alone     mean, points           found   by own")
    for n_examples in args.examples:
        for n_seeds in args.seeds:
            for noise in args.noise:
                random = np.random.default_rng([args.random_seed, n_examples, n_seeds, round(1000 * noise)])
                world = World(random, n_examples, n_seeds, noise / 100, args.accuracy)
                null = [world.draw() for _ in range(args.simulations)]
                tests = [paired_difference(*pair) for pair in null]
                alone = [paired_difference(*(scores.mean(axis=0, keepdims=True) for scores in pair)) for pair in null]
                detectable = np.array([test.detectable for test in tests])
                found = [paired_difference(*world.draw(detectable.mean())) for _ in detectable]
                by_own = [paired_difference(*world.draw(difference)) for difference in detectable]
                print(
                    f"{n_examples:>8}  {n_seeds:>5}  {noise:>5g}  {percentage(tests):>7.1f}  {percentage(alone):>14.1f}"
                    f"  {100 * detectable.mean():>15.2f}  {percentage(found):>14.1f}  {percentage(by_own):>7.1f}",
                    flush=True,
                )


class World:
    """Draws the scores of two strategies on new examples, by new seeds.

    A run is right with probability Phi(level + difficulty), a probit model, in which the level that gives a wanted mean
    accuracy has a closed form: so a seed's true accuracy deviates by exactly what is asked for.
    """

    spread = 1.2  # of the difficulties
    shared = 0.7  # the correlation of an example's difficulties for the two strategies

    def __init__(
        self, random: np.random.Generator, n_examples: int, n_seeds: int, noise: float, accuracy: float = 0.6
    ) -> None:
        self.random, self.n_examples, self.n_seeds = random, n_examples, n_seeds
        self.noise, self.accuracy = noise, accuracy

    def draw(self, difference: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the two, each (n_seeds, n_examples); ``difference`` and noise are shares, not points."""
        common = self.random.standard_normal(self.n_examples)
        return self._side(difference / 2, common), self._side(-difference / 2, common)

    def _side(self, shift: float, common: np.ndarray) -> np.ndarray:
        own = self.random.standard_normal(self.n_examples)
        difficulty = self.spread * (np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * own)
        accuracy = self.accuracy + shift + self.noise * self.random.standard_normal((self.n_seeds, 1))
        level = ndtri(np.clip(accuracy, 0.001, 0.999)) * np.sqrt(1 + self.spread**2)
        return (self.random.random((self.n_seeds, self.n_examples)) < ndtr(level + difficulty)).astype(float)


def percentage(tests: list[Difference]) -> float:
    return 100 * float(np.mean([test.p_value < ALPHA for test in tests]))


if __name__ == "__main__":
    main()
