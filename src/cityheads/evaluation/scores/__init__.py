"""Scores of what the city's app uses: class fractions over windows, probabilities, outlines and operating points.

Each module has pure functions on numpy arrays; `cityheads.evaluation.writing` puts them together for an evaluation.
docs/scores.md defines every score, with its unit and source.
"""
