# What is handed on: one checkpoint, one card, one recipe.


rule publish:
    input:
        parents=SHEET,
        gate=rules.compare.output.gate,
        dataset=rules.assemble_dataset.output,
        scenes=rules.assemble_dataset.input.scenes,
        trained=expand(
            f"{RESULTS}/runs/{GATE_RUN}/{{seed}}/{{file}}",
            seed=SEEDS,
            file=[
                "model.safetensors",
                "model.json",
                "training.json",
                "environment.json",
            ],
        ),
        evaluated=expand(
            f"{RESULTS}/evaluation/{GATE_RUN}/{{seed}}/metrics.json", seed=SEEDS
        ),
    output:
        bundle=directory(f"{RESULTS}/bundle"),
    log:
        f"{RESULTS}/logs/publish/bundle.log",
    benchmark:
        f"{RESULTS}/benchmarks/publish/bundle.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        settings=settings("publish"),
        code=code("publish"),
        config=CONFIG,
        results=folder_of("input.gate"),
    message:
        "Bundle the shared model with its recipe, scores and card"
    shell:
        "cityheads publish --config {params.config} --log {log}"
        " --parents {input.parents} --results {params.results} --out {output.bundle}"


rule publish_catalog:
    input:
        dataset=rules.assemble_dataset.output,
        manifest=rules.assemble_dataset.output.manifest,
        scenes=rules.assemble_dataset.input.scenes,
        chips=rules.assemble_dataset.input.chips,
        readings=expand(f"{RESULTS}/parents/{{parent}}/reading.json", parent=PARENTS),
    output:
        f"{RESULTS}/stac/catalog.json",
    log:
        f"{RESULTS}/logs/publish_catalog/catalog.log",
    benchmark:
        f"{RESULTS}/benchmarks/publish_catalog/catalog.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=settings("publish_catalog"),
        code=code("publish_catalog"),
        config=CONFIG,
        scenes=folder_of("input.scenes"),
        parents_dir=folder_of("input.readings", up=2),
        chips=folder_of("input.chips", up=2),
        dataset=folder_of("input.manifest"),
        out=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "Describe the dataset as a static STAC catalogue"
    shell:
        "cityheads publish_catalog --config {params.config} --log {log}"
        " --scenes {params.scenes} --parents-dir {params.parents_dir} --chips {params.chips} --dataset {params.dataset}"
        " --out {params.out}"
