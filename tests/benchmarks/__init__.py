"""How fast this connector is, compared with other packages: ``python -m tests.benchmarks --help``.

Absolute times are valid for one machine only. So everything that is compared is measured in the same run, in rounds
that take turns. The result is the median of the rounds' *ratios*: a disturbance of the machine affects all contenders.
"""
