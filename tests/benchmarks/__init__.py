"""How fast this connector is, beside what else there is: ``python -m tests.benchmarks --help``.

Absolute times say little about another machine, so everything that is compared is measured in the same run, in rounds
that take turns, and the result is the median of the rounds' *ratios*: what disturbs the machine for a while disturbs
all of them.
"""
