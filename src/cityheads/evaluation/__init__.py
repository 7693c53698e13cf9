"""Scores of trained models on held-out parents, and what may be concluded from them.

``evaluate`` scores one training, with its ablations; ``compare`` holds the multi-head run against its single-task
baselines and both against the controls, and gives the verdict. Imports from core, config, model and dataset. Within,
each module imports only from those before it: bootstrap, crossed, paired, ablation, evaluate (which never sees the
verdict); permutation, power, floor, verdict, verdict_page, compare.
"""
