# Trainings and their evaluation. A run is a list of heads in the config; all runs share these two rules.


rule train:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
    output:
        weights=f"{RESULTS}/runs/{{run}}/{{seed}}/model.safetensors",
        history=f"{RESULTS}/runs/{{run}}/{{seed}}/history.csv",
        training=f"{RESULTS}/runs/{{run}}/{{seed}}/training.json",
        environment=f"{RESULTS}/runs/{{run}}/{{seed}}/environment.json",
        model=f"{RESULTS}/runs/{{run}}/{{seed}}/model.json",
    log:
        f"{RESULTS}/logs/train/{{run}}_{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{run}}_{{seed}}.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: config["train"]["threads"]
    resources:
        mem_mb=3500,
        gpu=0 if config["train"]["accelerator"] == "cpu" else 1,
    params:
        settings=settings("train", of_run),
        code=code("train"),
        config=CONFIG,
        dataset=folder_of("input.manifest"),
        out=folder_of("output.model"),
    message:
        "Train run {wildcards.run} with seed {wildcards.seed}"
    shell:
        "cityheads train --config {params.config} --log {log}"
        " --run {wildcards.run} --seed {wildcards.seed} --dataset {params.dataset} --out {params.out}"


rule evaluate:
    input:
        manifest=rules.assemble_dataset.output.manifest,
        dataset=rules.assemble_dataset.output,
        weights=rules.train.output.weights,
        model=rules.train.output.model,
    output:
        confusion=f"{RESULTS}/evaluation/{{run}}/{{seed}}/confusion.parquet",
        predictions=f"{RESULTS}/evaluation/{{run}}/{{seed}}/predictions/index.json",
        metrics=f"{RESULTS}/evaluation/{{run}}/{{seed}}/metrics.json",
    log:
        f"{RESULTS}/logs/evaluate/{{run}}_{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{run}}_{{seed}}.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: config["train"]["threads"]
    resources:
        mem_mb=3000,
    params:
        settings=settings("evaluate", of_run),
        code=code("evaluate"),
        config=CONFIG,
        dataset=folder_of("input.manifest"),
        run_dir=folder_of("input.model"),
        out=folder_of("output.metrics"),
    message:
        "Evaluate run {wildcards.run} with seed {wildcards.seed} on the held-out parents"
    shell:
        "cityheads evaluate --config {params.config} --log {log}"
        " --run {wildcards.run} --seed {wildcards.seed} --dataset {params.dataset} --run-dir {params.run_dir}"
        " --out {params.out}"
