"""Holds a run against what it says of itself, byte by byte and number by number.

`look.py` goes over everything once: `lists.py` compares bytes with the digests that stages wrote
down, `corpora.py`, `cells.py` and `records.py` ask whether what the bytes say can be right, and
`recompute.py` has the model read some texts again. `repair.py` moves aside what is damaged. Nothing
here decides whether a stage is done: that is asked of records and outputs alone (`engine.plan`).
"""
