# CityHeads: one geospatial foundation model, many maps of a city.
# The chain: archive -> scenes -> parents -> sub-chips -> labels -> dataset -> runs -> evaluation -> verdict -> report
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from cityheads.config import read_yaml
from cityheads.core.errors import CityHeadsError

min_version("9.0")


# A file given with --configfile that holds labels, heads and runs stands alone; any other is laid over the default.
if not {"labels", "heads", "runs"} <= config.keys():
    if Path("config/config.yaml").is_file():
        try:
            # says file, line and column of what is no YAML; Snakemake says neither
            read_yaml(Path("config/config.yaml"))
        except CityHeadsError as error:
            raise WorkflowError(str(error)) from None

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/archive.smk"
include: "workflow/rules/chips.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/controls.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/product.smk"


if workflow.modifier.is_main_snakefile():

    onsuccess:
        tell_the_end(True)

    onerror:
        tell_the_end(False)


rule all:
    default_target: True
    input:
        report=RESULTS.report,
        bundle=RESULTS.bundle.root,
        masks=masks_besides(),
    localrule: True
    message:
        "Done: the report is {input.report}, the model to hand on is in {input.bundle}"


rule train_multihead:
    input:
        of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).model, [TESTED_RUN]
        ),
    localrule: True
    message:
        "Done: {input}"


rule controls:
    input:
        CONTROL_METRICS,
    localrule: True
    message:
        "Done: {input}"


rule dataset:
    input:
        chips=of_folds(lambda fold: RESULTS.dataset(fold).chips),
        masks=masks_besides(),
    localrule: True
    message:
        "Done: the chip table is {input.chips}"
