# Controls: what a score is held against. Those that train no network are made here; those that do are runs.

CONTROL_METRICS = [
    str(RESULTS.evaluation(control, fold, 0).metrics)
    for control in CONTROLS
    for fold in FOLDS
] + of_trainings(
    lambda run, fold, seed: RESULTS.evaluation(run, fold, seed).metrics,
    TRAINED_CONTROLS,
    CITY.control_seeds,
)


rule evaluate_control:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
        store=rules.pack_store.output,
        archive=branch(
            lambda wildcards: wildcards.control == "ceiling",
            then=str(RESULTS.archive.catalog),
            otherwise=[],
        ),
    output:
        confusion=str(RESULTS.evaluation("{control}", "{fold}", 0).confusion),
        scores=str(RESULTS.evaluation("{control}", "{fold}", 0).scores),
        predictions=str(RESULTS.evaluation("{control}", "{fold}", 0).predictions),
        metrics=str(RESULTS.evaluation("{control}", "{fold}", 0).metrics),
    log:
        str(RESULTS.log("evaluate_control", "{control}_{fold}")),
    benchmark:
        str(RESULTS.benchmark("evaluate_control", "{control}_{fold}"))
    conda:
        "../../envs/cityheads.yaml"
    # the sums over pixels, and with them the bytes, depend on the number of threads
    threads: 1
    resources:
        mem_mb=1500,
    params:
        config=untracked(CONFIG),
        version=version("evaluate_control"),
        settings=settings("evaluate_control", control=True),
        # the truth is rasterized at the parents' places
        places=lambda wildcards: (
            place(*PARENTS) if wildcards.control == "ceiling" else ""
        ),
        dataset=folder_of("input.manifest"),
        out=folder_of("output.metrics"),
        readings=untracked(placed(RESULTS.test_readings)),
        truth=lambda wildcards, input: (
            f"--archive {quote(str(Path(input.archive).parent))} --parents {quote(SHEET)}"
            if input.archive
            else ""
        ),
    message:
        "Make control {wildcards.control} on fold {wildcards.fold}"
    shell:
        "exec cityheads evaluate_control --config {params.config:q} --log {log:q}"
        " --control {wildcards.control} --fold {wildcards.fold} --dataset {params.dataset:q} --out {params.out:q}"
        " --readings {params.readings:q} {params.truth}"
