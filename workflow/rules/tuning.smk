# A small search of settings, the same for all compared runs; without a grid in the config these rules make nothing.


rule tune:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
        store=rules.pack_store.output,
    output:
        training=str(RESULTS.candidate("{run}", "{fold}", "{candidate}").training),
    log:
        str(RESULTS.log("tune", "{run}_{fold}_{candidate}")),
    benchmark:
        str(RESULTS.benchmark("tune", "{run}_{fold}_{candidate}"))
    wildcard_constraints:
        run=only(TUNED),
        candidate=r"\d+",
    conda:
        "../../envs/cityheads.yaml"
    threads: CITY.train.threads
    resources:
        # scaled by batch, sub-chips, decoders, encoder and loader processes (cityheads.config.estimate)
        mem_mb=max(3500, round(NEEDS.host_mb)),
        gpu=0 if CITY.train.accelerator == "cpu" else 1,
    params:
        config=untracked(CONFIG),
        version=version("tune"),
        training=version("train"),
        settings=settings("train", run=True),
        candidate=own_candidate,
        dataset=folder_of("input.manifest"),
        out=folder_of("output.training"),
    message:
        "Train candidate {wildcards.candidate} of run {wildcards.run} on fold {wildcards.fold}"
    shell:
        "exec cityheads tune --config {params.config:q} --log {log:q}"
        " --run {wildcards.run} --fold {wildcards.fold} --candidate {wildcards.candidate}"
        " --dataset {params.dataset:q} --out {params.out:q}"


rule choose_settings:
    input:
        trainings=candidate_trainings,
    output:
        str(RESULTS.settings("{run}", "{fold}")),
    log:
        str(RESULTS.log("choose_settings", "{run}_{fold}")),
    benchmark:
        str(RESULTS.benchmark("choose_settings", "{run}_{fold}"))
    wildcard_constraints:
        run=only(TUNED),
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        version=version("choose_settings"),
        settings=settings("choose_settings"),
        fold=lambda wildcards: (0 if CITY.tuning.fold == "first" else wildcards.fold),
    message:
        "Choose the settings of run {wildcards.run} on validation"
    shell:
        "exec cityheads choose_settings --config {params.config:q} --log {log:q}"
        " --run {wildcards.run} --fold {params.fold} --trainings {input.trainings:q} --out {output:q}"
