"""The whole config, what holds between its sections, and the narrower views of it that verbs and rules get."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Set
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge
from pydantic import model_validator

from cityheads.config.archive import ArchiveConfig, SimulateConfig
from cityheads.config.base import (
    Affects,
    FrozenDict,
    Integer,
    Section,
    Text,
    UndeclaredSectionError,
    affects,
    field,
    only_once,
    plain,
    refuse,
    section,
)
from cityheads.config.controls import CEILING, KEYS, TRAINED, UNTRAINED, Control, ControlsConfig
from cityheads.config.downloads import Downloads
from cityheads.config.evaluation import EvaluationConfig, NoninferiorityConfig
from cityheads.config.grid import GridConfig, QualityConfig
from cityheads.config.heads import HeadConfig, Heads, RunConfig, Runs
from cityheads.config.labels import Label, Labels, LandcoverLabel
from cityheads.config.model import ModelConfig
from cityheads.config.project import ProjectConfig, ReportConfig
from cityheads.config.splits import SplitsConfig
from cityheads.config.train import TrainConfig
from cityheads.config.tuning import SAME_FOR_ALL, TuningConfig
from cityheads.core.files import canonical_json
from cityheads.core.modalities import stored

__all__ = ["Config"]

_S = TypeVar("_S", bound=Section)


class Config(Section):
    """Every key that a CityHeads config may hold, with its default."""

    project: ProjectConfig = section(ProjectConfig)
    results: Text = field("results", "Folder for everything that the workflow writes.", affects="nothing", min_length=1)
    parents: Text = field(
        "config/parents.tsv",
        "The parent sheet, tab-separated, with the columns parent_id, epsg, left, top and, optionally, split and "
        "region.",
        min_length=1,
    )
    grid: GridConfig = section(GridConfig)
    archive: ArchiveConfig = section(ArchiveConfig)
    simulate: SimulateConfig = section(SimulateConfig)
    quality: QualityConfig = section(QualityConfig)
    labels: Labels = field(..., "The label layers, by name (upper case); each becomes chips/MASK_NAME.", min_length=1)
    downloads: Downloads = field(
        {},
        "Files that the workflow fetches when they are not there, by the path under which a label names them: "
        "{provider, url, sha256}.",
        affects="nothing",
    )
    splits: SplitsConfig = section(SplitsConfig)
    heads: Heads = field(..., "The heads that runs can use, by name.", min_length=1)
    runs: Runs = field(..., "The trainings, by name; each is a list of heads on one shared encoder.", min_length=1)
    seeds: Annotated[tuple[Annotated[Integer, Ge(0)], ...], only_once] = field(
        (0,), "Every run is trained once with each seed.", min_length=1
    )
    experiments: Text | None = field(
        None,
        "A sheet of experiments, tab-separated, with the columns name, set and, optionally, heads, seeds and comment: "
        "each row is one more run, which snakemake leaderboard trains and scores on validation. Null for none.",
        affects="nothing",
        min_length=1,
    )
    model: ModelConfig = section(ModelConfig)
    train: TrainConfig = section(TrainConfig)
    tuning: TuningConfig = section(TuningConfig)
    evaluation: EvaluationConfig = section(EvaluationConfig)
    controls: ControlsConfig = section(ControlsConfig)
    noninferiority: NoninferiorityConfig = section(NoninferiorityConfig)
    report: ReportConfig = section(ReportConfig)

    @model_validator(mode="after")
    def _inputs_are_read(self) -> Config:
        for name in stored(self.model.modalities):
            if name not in self.archive.imagery.names:
                refuse("model.modalities", f"{name} is not in archive.imagery")
        return self

    @model_validator(mode="after")
    def _footprints_have_files(self) -> Config:
        if self.archive.provider == "simulated":
            return self
        for name, label in self.labels.items():
            if label.kind == "footprints":
                for key in ("source", "boundary"):
                    if not getattr(label, key):
                        refuse(f"labels.{name}.{key}", "name a vector file")
        return self

    @model_validator(mode="after")
    def _downloads_are_used(self) -> Config:
        named = {getattr(label, key, None) for label in self.labels.values() for key in ("source", "boundary")}
        for path in self.downloads:
            if path not in named:
                paths = sorted(filter(None, named))
                refuse(
                    f"downloads.{path}", f"no label names that file; {_known(path, paths) if paths else 'remove it'}"
                )
        return self

    @model_validator(mode="after")
    def _heads_have_labels(self) -> Config:
        for name, head in self.heads.items():
            if head.label not in self.labels:
                refuse(f"heads.{name}.label", f"no label '{head.label}'; {_known(head.label, self.labels)}")
            classes = self.labels[head.label].class_names
            if head.class_weights is not None and len(head.class_weights) != len(classes):
                refuse(
                    f"heads.{name}.class_weights",
                    f"{len(classes)} classes need as many weights, not {len(head.class_weights)}",
                )
            if head.metric == "iou" and head.positive_class is None:
                refuse(
                    f"heads.{name}.positive_class",
                    f"metric iou is of one class; name it: {' or '.join(classes)}",
                )
            if head.positive_class is not None and head.positive_class not in classes:
                refuse(
                    f"heads.{name}.positive_class",
                    f"label {head.label} has no class '{head.positive_class}'; {_known(head.positive_class, classes)}",
                )
        return self

    @model_validator(mode="after")
    def _heads_that_merge_have_their_own_neck(self) -> Config:
        for name, head in self.heads.items():
            if self.model.merge in ("dict", "none") and head.neck == "shared":
                refuse(
                    f"heads.{name}.neck",
                    f"with model.merge {self.model.merge} each head merges the modalities itself, so it needs a neck "
                    "of its own",
                )
        return self

    @model_validator(mode="after")
    def _runs_have_heads(self) -> Config:
        for name, run in self.runs.items():
            for head in run.heads:
                if head not in self.heads:
                    refuse(f"runs.{name}.heads", f"no head '{head}'; {_known(head, self.heads)}")
        return self

    @model_validator(mode="after")
    def _runs_set_keys_of_their_own_training(self) -> Config:
        for name, run in self.runs.items():
            for key in run.set:
                first, *rest = key.split(".")
                parts: dict[str, type[Section]] = {"model": ModelConfig, "train": TrainConfig}
                if first == "heads" and len(rest) == 2 and rest[1] != "label":
                    if rest[0] not in run.heads:
                        refuse(
                            f"runs.{name}.set", f"{key}: the run has no head '{rest[0]}'; {_known(rest[0], run.heads)}"
                        )
                    fields = set(HeadConfig.model_fields)
                elif first in parts and len(rest) == 1:
                    fields = set(parts[first].model_fields)
                else:
                    refuse(
                        f"runs.{name}.set",
                        f"'{key}' cannot be set for a run; model.KEY, train.KEY and heads.HEAD.KEY can, but not label",
                    )
                if rest[-1] not in fields:
                    refuse(f"runs.{name}.set", f"'{key}' is unknown; {_known(rest[-1], sorted(fields))}")
        return self

    @model_validator(mode="after")
    def _controls_have_names_of_their_own(self) -> Config:
        for name in self.runs:
            if name in get_args(Control):
                refuse(f"runs.{name}", "is the name of a control (section controls); choose another")
        return self

    @model_validator(mode="after")
    def _proxies_stand_for_something(self) -> Config:
        for name, proxy in self.controls.proxies.items():
            here = f"controls.proxies.{name}"
            if name not in self.heads:
                refuse(here, f"no head '{name}'; {_known(name, self.heads)}")
            head = self.heads[name]
            if head.positive_class is None or len(self.labels[head.label].class_names) != 2:
                refuse(here, f"only a head of two classes with a positive_class has a proxy; {name} is none")
            if proxy.label == head.label:
                refuse(f"{here}.label", f"{proxy.label} is what the head itself learns; name another label")
            if proxy.label not in self.labels_learnt:
                refuse(
                    f"{here}.label", f"no run learns a label '{proxy.label}'; {_known(proxy.label, self.labels_learnt)}"
                )
            classes = self.labels[proxy.label].class_names
            for one in proxy.classes:
                if one not in classes:
                    refuse(f"{here}.classes", f"label {proxy.label} has no class '{one}'; {_known(one, classes)}")
        return self

    @model_validator(mode="after")
    def _baselines(self) -> Config:
        test, here = self.noninferiority, "noninferiority"
        if test.run not in self.runs:
            refuse(f"{here}.run", f"no run '{test.run}'; {_known(test.run, self.runs)}")
        tested = self.runs[test.run].heads
        for head in test.baselines:
            if head not in tested:
                refuse(f"{here}.baselines.{head}", f"run '{test.run}' has no such head; {_known(head, tested)}")
        # those that are not listed go behind those that are: the order in which the report lists them
        complete = {**test.baselines, **{head: head for head in tested if head not in test.baselines}}
        for head in tested:
            baseline = complete[head]
            if baseline not in self.runs:
                refuse(f"{here}.baselines.{head}", f"no run '{baseline}' to compare head {head} with")
            if self.runs[baseline].heads != (head,):
                refuse(f"{here}.baselines.{head}", f"run '{baseline}' is not single-task for {head}")
        # the config is frozen to all but its own validator
        complete_test = test.model_copy(update={"baselines": FrozenDict(complete)})
        object.__setattr__(self, "noninferiority", complete_test)
        return self

    @model_validator(mode="after")
    def _the_search_is_the_same_for_all(self) -> Config:
        known = {"model": set(ModelConfig.model_fields), "train": set(TrainConfig.model_fields)}
        for key in self.tuning.grid:
            first, _, name = key.partition(".")
            if first not in known:
                refuse("tuning.grid", f"'{key}' cannot be searched; model.KEY and train.KEY can")
            if name not in known[first]:
                refuse("tuning.grid", f"'{key}' is unknown; {_known(name, sorted(known[first]))}")
            if first == "train" and name in SAME_FOR_ALL:
                refuse("tuning.grid", f"'{key}' must be the same for all runs that are compared; set it in train")
            for run in self.tuned_runs:
                if key in self.runs[run].set:
                    refuse("tuning.grid", f"'{key}' is set by run '{run}' already; remove it there or here")
        return self

    def restricted_to(self, sections: Iterable[str]) -> Config:
        """Give the config with these sections only, as the command line hands it to a verb.

        Args:
            sections: Names such as ``grid``; ``archive.imagery`` gives a part of a section.

        Returns:
            A config of the same type. Reading another section raises `UndeclaredSectionError`.
        """
        parts: dict[str, set[str]] = {}
        for name in sections:
            first, _, rest = name.partition(".")
            parts.setdefault(first, set()).add(rest)
        shown = _only(self, parts.keys()).__dict__
        return _part(self, {name: at if "" in parts[name] else _only(at, parts[name]) for name, at in shown.items()})

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds that are run, in ascending order; splits that are not by folds have the one fold 0."""
        if self.splits.method != "folds":
            return (0,)
        only = self.splits.only_folds
        return tuple(range(self.splits.folds)) if only is None else tuple(sorted(only))

    @property
    def tuned_runs(self) -> tuple[str, ...]:
        """Runs whose settings are searched: those of the non-inferiority test, where there is a grid."""
        test = self.noninferiority
        return tuple(dict.fromkeys((test.run, *test.baselines.values()))) if self.tuning.grid else ()

    def with_settings(self, run: str, settings: Mapping[str, Any]) -> Config:
        """Give the config with more settings for one run, by dotted keys, below what the run sets of its own."""
        own = self.runs[run]
        changed = own.model_copy(update={"set": FrozenDict({**settings, **own.set})})
        return _part(self, self.__dict__ | {"runs": FrozenDict({**self.runs, run: changed})})

    @property
    def untrained_controls(self) -> tuple[str, ...]:
        """The controls that train no network and can be made: of ``controls.made``, those that have what they need."""
        proxied = any(head in self.controls.proxies for head in self.runs[self.noninferiority.run].heads)
        can = {"proxy": proxied}
        return tuple(name for name in UNTRAINED if name in self.controls.made and can.get(name, True))

    @property
    def ceiling_heads(self) -> tuple[str, ...]:
        """Heads of the tested run whose planted upper bound is known: those that learn the simulated archive's labels.

        Empty where the control ``ceiling`` is not made.
        """
        if self.archive.provider != "simulated" or CEILING not in self.controls.made:
            return ()

        def simulated(label: Label) -> bool:
            return label.kind == "landcover" or (label.kind == "footprints" and label.source is None)

        heads = self.runs[self.noninferiority.run].heads
        return tuple(name for name in heads if simulated(self.labels[self.heads[name].label]))

    @property
    def trained_controls(self) -> dict[str, RunConfig]:
        """The controls that are trainings: the tested run with another encoder, of ``controls.made`` those that differ.

        They are no runs of the config, so that the report and the recipe list what the user asked for; `for_run` knows
        them.
        """
        tested = self.runs[self.noninferiority.run]
        model = self.for_run(self.noninferiority.run).model
        can = {
            "no_encoder": model.encoder != "absent",
            "frozen_encoder": model.encoder == "trained",
            "random_encoder": model.encoder != "absent" and bool(model.pretrained or model.weights),
        }
        return {
            name: tested.model_copy(update={"set": FrozenDict({**tested.set, **changes})})
            for name, changes in TRAINED.items()
            if name in self.controls.made and can[name]
        }

    @property
    def control_seeds(self) -> tuple[int, ...]:
        """Seeds of the controls that are trained; those that are not trained count as seed 0."""
        return self.seeds[:1] if self.controls.seeds is None else self.controls.seeds

    @property
    def labels_learnt(self) -> tuple[str, ...]:
        """Labels that some head of some run learns; the others are rasterized and published, and train nothing."""
        learnt = {self.heads[head].label for run in self.runs.values() for head in run.heads}
        return tuple(name for name in self.labels if name in learnt)

    def for_label(self, label: str) -> Config:
        """Give the config with one label layer only."""
        return _part(self, self.__dict__ | {"labels": FrozenDict({label: self.labels[label]})})

    def for_labels(self, labels: Iterable[str]) -> Config:
        """Give the config with some label layers only, in the order of the config."""
        wanted = set(labels)
        kept = {name: label for name, label in self.labels.items() if name in wanted}
        return _part(self, self.__dict__ | {"labels": FrozenDict(kept)})

    def for_run(self, run: str) -> Config:
        """Give the config with one run, its heads, and their labels only, and what the run sets otherwise in force.

        Of a config that shows some sections only, those are narrowed that it shows.

        Args:
            run: One of ``runs``, or of a whole config also one of `trained_controls`.
        """
        shown = dict(self.__dict__)
        own = self.runs[run] if run in self.runs else self.trained_controls[run]
        shown["runs"] = FrozenDict({run: own})
        if "heads" in shown:
            shown["heads"] = FrozenDict({name: self.heads[name] for name in own.heads})
            if "labels" in shown:
                learnt = {head.label for head in shown["heads"].values()}
                shown["labels"] = FrozenDict({name: label for name, label in self.labels.items() if name in learnt})
        for key, value in own.set.items():
            first, *middle, last = key.split(".")
            if first not in shown:
                continue
            if middle:
                head = middle[0]
                shown[first] = FrozenDict(shown[first] | {head: _with(shown[first][head], last, value)})
            else:
                shown[first] = _with(shown[first], last, value)
        return _part(self, shown)

    def for_control(self, control: str) -> Config:
        """Give the config with what the result of one of `untrained_controls`, or of the ceiling, depends on.

        That is: of its heads, which are those of the tested run, what they are scored by; of section ``controls``, its
        own keys; of section ``evaluation``, what is scored; labels for the ceiling only, which rasterizes them.
        """
        heads = {name: self.heads[name] for name in self.runs[self.noninferiority.run].heads}
        if control == "proxy":
            heads = {name: head for name, head in heads.items() if name in self.controls.proxies}
        if control == CEILING:
            heads = {name: heads[name] for name in self.ceiling_heads}
        rasterized = {head.label for head in heads.values()} if control == CEILING else set()
        narrow: dict[str, Any] = {
            "evaluation": _only(self.evaluation, {"windows_m", "min_labelled_fraction", "boundary_px"}),
            "heads": FrozenDict(
                {name: _only(head, {"label", "metric", "positive_class"}) for name, head in heads.items()}
            ),
            "labels": FrozenDict({name: label for name, label in self.labels.items() if name in rasterized}),
            "controls": _only(self.controls, set(KEYS[control])),
        }
        return _part(self, self.__dict__ | narrow)

    def to_dict(self) -> dict[str, Any]:
        """Give what this config shows as dicts, lists and scalars; a restricted one its own sections only."""
        shown: dict[str, Any] = plain(self)
        return shown

    def fingerprint(
        self, sections: Iterable[str], *, colors: bool = False, reading: bool = True, scene_search: bool = False
    ) -> str:
        """Give the text that stands for all that can change a result in these sections: canonical JSON.

        Two configs with the same text give the same result. Left out are the keys that never change one (patience with
        the network, number of processes) and, unless asked for, the class colours.

        A job looks at less than its whole sections: take ``config.for_label("LULC").fingerprint(...)`` for a job of one
        label layer, and ``config.for_run("multihead").fingerprint(...)`` for one of a run.

        Args:
            sections: Names such as ``grid`` or ``archive.imagery``.
            colors: Whether class colours count: for what draws them.
            reading: Whether it counts how pixels are read from the chosen scenes; not so for what makes the scenes.
            scene_search: Whether this is the search for scenes (sections ``archive`` and ``labels`` among others). To
                that, how pixels are read does not count, and of the labels the collections of land cover only.
        """
        kept: set[Affects] = {"results"}
        if colors:
            kept.add("figures")
        if scene_search:
            kept.add("choice")
        elif reading:
            kept.add("reading")
        found: dict[str, Any] = {}
        for name in sections:
            value: Any = self
            counts = True
            for part in name.split("."):
                counts = counts and affects(type(value).model_fields[part]) in kept
                value = getattr(value, part)
            if counts:
                found[name] = plain(value, kept)
        if scene_search:
            found["labels"] = {
                name: [label.collection, label.asset, label.datetime]
                for name, label in self.labels.items()
                if isinstance(label, LandcoverLabel)
            }
        return canonical_json(found)


def _part(whole: _S, shown: Mapping[str, Any]) -> _S:
    """Give a section of the same type that has some of its fields, with these values, and not the others."""
    part = whole.model_copy()
    part.__dict__.clear()
    part.__dict__.update(shown)
    return part


def _with(part: _S, name: str, value: Any) -> _S:
    """Give a section with another value for one of its fields; left as it is where it does not show the field."""
    if name not in part.__dict__:
        return part
    whole = type(part).model_validate({**plain(part), name: plain(value)})
    return _part(part, {key: getattr(whole, key) for key in part.__dict__})


def _only(whole: _S, names: Set[str]) -> _S:
    """Give a section of the same type that has these of its fields only."""
    unknown = sorted(names - whole.__dict__.keys())
    if unknown:
        raise UndeclaredSectionError(f"the config has no section '{unknown[0]}'")
    return _part(whole, {name: value for name, value in whole.__dict__.items() if name in names})


def _known(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
