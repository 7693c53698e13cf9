"""The dataset: sub-chips and their quality, splits, the packed store, its loader, and what can be said about it.

``chips`` cuts parents, ``splits`` assigns them, ``assemble`` writes the dataset, ``store`` and ``datamodule``
read it for training, ``checks`` compares the labels with each other and the imagery, ``catalog`` publishes it as STAC.
Imports ``core``, ``config``, ``archive`` and ``labels``; knows nothing of models. Only ``datamodule`` needs torch.
"""
