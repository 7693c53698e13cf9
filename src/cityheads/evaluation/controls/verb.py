"""The verb ``evaluate_control``: one control on one fold, written as the evaluation of a run is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityheads.config import Config
from cityheads.config.controls import CEILING
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.readings import log_reading
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.classes import mask_layer
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_bytes
from cityheads.core.layout import DatasetFolder, EvaluationFolder
from cityheads.core.modalities import MODALITIES
from cityheads.dataset.store import ChipStore
from cityheads.evaluation.controls import boosting
from cityheads.evaluation.controls.pixels import PixelFeatures
from cityheads.evaluation.controls.trivial import by_proxy, most_frequent
from cityheads.evaluation.controls.truth import true_masks
from cityheads.evaluation.evaluate import SplitChip, split_chips
from cityheads.evaluation.writing import HeadResult, write_evaluation

__all__ = ["evaluate_control"]

log = logging.getLogger(__name__)

#: Controls have no chance of their own that a seed would vary: their sample's seed is a key of the config.
_SEED = 0


@dataclass(frozen=True)
class _Head:
    """A head's labels: all sub-chips of the store, (N, h, w) uint8, and what predictions of them are scored by."""

    label: str
    masks: np.ndarray
    metric: HeadMetric

    @property
    def classes(self) -> int:
        return len(self.metric.classes)


@dataclass(frozen=True)
class _Found:
    """What a control says of the test sub-chips: (n, h, w) uint8 classes, and (n, C, h, w) float32 probabilities."""

    predictions: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class _Data:
    """An assembled dataset as the controls read it; positions are those of the store, per split."""

    folder: DatasetFolder
    store: ChipStore
    positions: Mapping[str, Sequence[int]]

    def images(self) -> dict[str, np.ndarray]:
        """Give all modalities of the dataset, (N, C, h, w) each, whichever of them the model looks at."""
        return {name: self.store.array(name) for name in self.store.index["arrays"] if name in MODALITIES}


def evaluate_control(
    config: Config,
    *,
    control: str,
    fold: int,
    dataset: Path,
    out: Path,
    readings: Path | None = None,
    archive: Path | None = None,
    parents: Path | None = None,
) -> None:
    """Make one control on the training split of a fold and write its evaluation on the test split.

    The same config and dataset give the same bytes.

    Args:
        config: As `Config.for_control` gives it: its sections ``heads``, ``controls`` and ``evaluation``; for the
            ceiling also ``grid`` and ``labels``.
        control: Name of the control.
        fold: Fold that the dataset is of.
        dataset: Folder of the assembled dataset.
        out: Folder of the evaluation; ``metrics.json`` is written last.
        readings: Log of the readings of the test split, to which this one is added before anything is predicted.
        archive: Folder of the simulated archive, for the ceiling.
        parents: Parent sheet, for the ceiling.

    Raises:
        CityHeadsError: There is no such control, a split has no sub-chips, or a head has no labelled pixel to learn
            from.
    """
    if control not in (*_MAKERS, CEILING):
        raise CityHeadsError(f"no control '{control}' without training; there are {', '.join((*_MAKERS, CEILING))}")
    folder = DatasetFolder(dataset)
    store = ChipStore(folder.root)
    store.verify()
    data = _Data(folder, store, store.split_indices())
    tested = split_chips(folder, "test")
    if not data.positions["train"]:
        raise CityHeadsError(f"{folder.chips}: split 'train' has no kept sub-chip; change the splits")
    if readings is not None:
        log_reading(
            readings,
            run=control,
            fold=fold,
            seed=_SEED,
            settings_sha256=sha256_bytes(config.fingerprint(("heads", "controls", "evaluation")).encode()),
            weights_sha256=None,
        )
    tables = CLASSES.read(folder.classes)["labels"]
    heads = {
        name: _Head(
            rule.label,
            store.array(mask_layer(rule.label)),
            HeadMetric.of(rule.metric, [item["name"] for item in tables[rule.label]], rule.positive_class),
        )
        for name, rule in config.heads.items()
    }
    if control == CEILING:
        if archive is None or parents is None:
            raise CityHeadsError(f"control {control} needs --archive, the simulated archive, and --parents, its sheet")
        found = _ceiling(config, heads, tested, Path(archive), Path(parents))
    else:
        found = _MAKERS[control](config, data, heads)
    metrics = write_evaluation(
        EvaluationFolder(out),
        run=control,
        fold=fold,
        seed=_SEED,
        split="test",
        kind="control",
        simulated=STATISTICS.read(folder.statistics)["simulated"],
        chips=[chip.chip_id for chip in tested],
        parents=[chip.parent_id for chip in tested],
        resolution_m=tested[0].resolution_m,
        heads={
            name: HeadResult(
                head.label,
                head.metric,
                np.asarray(head.masks[list(data.positions["test"])]),
                found[name].predictions,
                found[name].probabilities,
            )
            for name, head in heads.items()
        },
        settings=config.evaluation,
    )
    for name, part in metrics["heads"].items():
        value = part["metric"]["value"]
        shown = "undefined" if value is None else f"{value:.4f}"
        log.info("%s/%d %s: %s %s on %d sub-chips", control, fold, name, heads[name].metric.title, shown, len(tested))


def _majority(config: Config, data: _Data, heads: Mapping[str, _Head]) -> dict[str, _Found]:
    """Predict the most frequent class of the training split everywhere."""
    shape = (len(data.positions["test"]), data.store.chip_px, data.store.chip_px)
    return {
        name: _Found(np.full(shape, most_frequent(head.masks, data.positions["train"], head.classes), np.uint8))
        for name, head in heads.items()
    }


def _proxy(config: Config, data: _Data, heads: Mapping[str, _Head]) -> dict[str, _Found]:
    """Predict from the labels of another layer, which are read as they are."""
    tables = CLASSES.read(data.folder.classes)["labels"]
    found = {}
    for name, head in heads.items():
        proxy, positive = config.controls.proxies[name], config.heads[name].positive_class
        ids = [item["id"] for item in tables[proxy.label] if item["name"] in proxy.classes]
        other = data.store.array(mask_layer(proxy.label))[list(data.positions["test"])]
        found[name] = _Found(by_proxy(other, ids, [*head.metric.classes].index(str(positive))))
    return found


def _pixels(config: Config, data: _Data, heads: Mapping[str, _Head]) -> dict[str, _Found]:
    return _boosted(config, data, heads, ())


def _pixels_context(config: Config, data: _Data, heads: Mapping[str, _Head]) -> dict[str, _Found]:
    return _boosted(config, data, heads, config.controls.windows_px)


def _boosted(config: Config, data: _Data, heads: Mapping[str, _Head], windows_px: Sequence[int]) -> dict[str, _Found]:
    """Fit boosted trees for each head on training pixels, and predict the test sub-chips.

    How far the decision leans to rare classes is chosen on the validation sub-chips; without any it does not lean.
    """
    # sums over the pixels depend on the number of threads in their last digits; loaded first, for the limit to find it
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    settings, side = config.controls, data.store.chip_px
    features = PixelFeatures(data.images(), windows_px)
    with threadpool_limits(1):
        models = {}
        for name, head in heads.items():
            train = data.positions["train"]
            try:
                sample = boosting.draw_sample(head.masks, train, head.classes, settings.sample_px, settings.seed)
            except ValueError as error:
                raise CityHeadsError(f"{data.folder.chips}: head {name}, split 'train': {error}") from None
            models[name] = boosting.fit(features, head.masks, sample, settings.iterations)
        probabilities: dict[str, dict[str, list[np.ndarray]]] = {"val": {}, "test": {}}
        for split, per_head in probabilities.items():
            per_head.update({name: [] for name in heads})
            for position in data.positions[split]:
                # sub-chip by sub-chip: what the trees look at stays in the processor's cache, and memory stays small
                seen = features(position)
                for name, model in models.items():
                    per_head[name].append(model.probabilities(seen))
    found = {}
    for name, head in heads.items():
        model = models[name]
        labels = [np.asarray(head.masks[position]).ravel() for position in data.positions["val"]]
        lean = model.choose_lean(probabilities["val"][name], labels, head.metric)
        log.info("%s: %d training pixels, lean to rare classes %g", name, model.size, lean)
        ours = probabilities["test"][name]
        found[name] = _Found(
            np.stack([model.decide(one, lean).reshape(side, side) for one in ours]),
            np.stack([one.T.reshape(head.classes, side, side) for one in ours]),
        )
    return found


def _ceiling(
    config: Config, heads: Mapping[str, _Head], tested: Sequence[SplitChip], archive: Path, sheet: Path
) -> dict[str, _Found]:
    """Predict what is true in the simulated world."""
    parents = list(dict.fromkeys(chip.parent_id for chip in tested))
    masks = {head.label: true_masks(config, head.label, archive, sheet, parents) for head in heads.values()}
    return {
        name: _Found(np.stack([masks[head.label][chip.chip_id] for chip in tested])) for name, head in heads.items()
    }


_MAKERS: dict[str, Callable[[Config, _Data, Mapping[str, _Head]], dict[str, _Found]]] = {
    "majority": _majority,
    "proxy": _proxy,
    "pixels": _pixels,
    "pixels_context": _pixels_context,
}
