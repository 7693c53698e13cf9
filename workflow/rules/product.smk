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
