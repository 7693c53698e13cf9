# Trainings and their evaluation. A run is a list of heads in the config; all runs share these two rules.


rule train:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
        store=rules.pack_store.output,
        settings=chosen_settings,
    output:
        weights=str(RESULTS.run("{run}", "{fold}", "{seed}").weights),
        history=str(RESULTS.run("{run}", "{fold}", "{seed}").history),
        training=str(RESULTS.run("{run}", "{fold}", "{seed}").training),
        environment=str(RESULTS.run("{run}", "{fold}", "{seed}").environment),
        model=str(RESULTS.run("{run}", "{fold}", "{seed}").model),
    log:
        str(RESULTS.log("train", "{run}_{fold}_{seed}")),
    benchmark:
        str(RESULTS.benchmark("train", "{run}_{fold}_{seed}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: CITY.train.threads
    resources:
        # scaled by batch, sub-chips, decoders, encoder and loader processes (cityheads.config.estimate)
        mem_mb=max(3500, round(NEEDS.host_mb)),
        gpu=0 if CITY.train.accelerator == "cpu" else 1,
    params:
        config=config_of_run,
        version=version("train"),
        settings=settings("train", run=True),
        dataset=folder_of("input.manifest"),
        out=folder_of("output.model"),
        chosen=lambda wildcards, input: (
            f" --settings {quote(str(input.settings))}" if input.settings else ""
        ),
    message:
        "Train run {wildcards.run} on fold {wildcards.fold} with seed {wildcards.seed}"
    shell:
        "exec cityheads train --config {params.config:q} --log {log:q}"
        " --run {wildcards.run} --fold {wildcards.fold} --seed {wildcards.seed} --dataset {params.dataset:q}"
        "{params.chosen} --out {params.out:q}"


rule evaluate:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
        store=rules.pack_store.output,
        weights=rules.train.output.weights,
        model=rules.train.output.model,
        # fitted by the same training on its validation split, to score its test split
        calibration=lambda wildcards: (
            str(
                RESULTS.evaluation(
                    wildcards.run, wildcards.fold, wildcards.seed, "val"
                ).calibration
            )
            if wildcards.split == "test"
            else []
        ),
    output:
        **{
            name: str(
                getattr(
                    RESULTS.evaluation("{run}", "{fold}", "{seed}", "{split}"), name
                )
            )
            for name in (
                "confusion",
                "predictions",
                "scores",
                "calibration",
                "metrics",
            )
        },
    log:
        str(RESULTS.log("evaluate", "{split}_{run}_{fold}_{seed}")),
    benchmark:
        str(RESULTS.benchmark("evaluate", "{split}_{run}_{fold}_{seed}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: CITY.train.threads
    resources:
        mem_mb=3000,
    params:
        config=config_of_run,
        version=version("evaluate"),
        settings=settings("evaluate", run=True),
        dataset=folder_of("input.manifest"),
        run_dir=folder_of("input.model"),
        out=folder_of("output.metrics"),
        calibration=lambda wildcards, input: (
            f"--calibration {quote(str(input.calibration))}"
            if input.calibration
            else ""
        ),
        readings=untracked(placed(RESULTS.test_readings)),
    message:
        "Evaluate run {wildcards.run} on the {wildcards.split} parents of fold {wildcards.fold} with seed {wildcards.seed}"
    shell:
        "exec cityheads evaluate --config {params.config:q} --log {log:q} --split {wildcards.split}"
        " --run {wildcards.run} --fold {wildcards.fold} --seed {wildcards.seed} --dataset {params.dataset:q} --run-dir {params.run_dir:q}"
        " {params.calibration} --readings {params.readings:q} --out {params.out:q}"
