# CityHeads: one geospatial foundation model, many maps of a city.
# The chain: archive -> scenes -> parents -> sub-chips -> labels -> dataset -> runs -> evaluation -> verdict -> report
from snakemake.utils import min_version

min_version("9.0")


# A file given with --configfile that holds labels, heads and runs stands alone; any other is laid over the default.
if not {"labels", "heads", "runs"} <= config.keys():

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/archive.smk"
include: "workflow/rules/chips.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/product.smk"


rule all:
    default_target: True
    input:
        RESULTS.report,
        RESULTS.bundle.root,
        [
            RESULTS.parent(parent).raster(layer)
            for parent in PARENTS
            for layer in masks_of(LABELS)
        ],
    localrule: True


rule train_multihead:
    input:
        of_trainings(lambda run, seed: RESULTS.run(run, seed).model, [TESTED_RUN]),
    localrule: True


rule dataset:
    input:
        RESULTS.dataset.chips,
        [
            RESULTS.parent(parent).raster(layer)
            for parent in PARENTS
            for layer in masks_of(LABELS)
        ],
    localrule: True
