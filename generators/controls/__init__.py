"""Controls: generators of known quality, which show whether the benchmark's numbers mean anything.

They learn nothing that could fail. What each is good or bad at is known beforehand, so the harness
has to say it: an oracle scores at the floor, a copycat is caught by memorisation, and so on.
Modules here import neither torch nor MONAI.
"""
