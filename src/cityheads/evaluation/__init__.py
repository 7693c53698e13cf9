"""Scores of trained models on held-out parents, and what may be concluded from them.

``evaluate`` scores one training, with its modality ablation; ``compare`` holds the multi-head run against its
single-task baselines and gives the verdict. Imports from core, config, model and dataset. Within, each module imports
only from those before it: bootstrap, paired, ablation, evaluate (which never sees the verdict); verdict,
verdict_page, compare.
"""
