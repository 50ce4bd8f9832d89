"""Partitioning: which backend runs which node, and the segments that this makes.

assignment.py   every node to the first backend that takes it, or to torch with a reason
phases.py       phases that keep segments few, and free of cycles
extraction.py   each phase of a backend becomes one ``rw.segment`` node with a region
report.py       what became of it, in words
advice.py       what to change to get a node into a segment
partition.py    the pass
rest.py         what stays in torch, outlined for Inductor
"""
