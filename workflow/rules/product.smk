# What is handed on: one checkpoint, one card, one recipe; and the dataset as a catalogue.


rule publish:
    input:
        gate=rules.compare.output.gate,
        dataset=datasets(FOLDS[:1]),
        scenes=rules.pack_store.input.scenes,
        trained=[
            str(file)
            for fold in FOLDS
            for seed in SEEDS
            for run in [RESULTS.run(TESTED_RUN, fold, seed)]
            for file in (run.weights, run.model, run.training, run.environment)
        ],
        evaluated=of_trainings(
            lambda run, fold, seed: RESULTS.evaluation(run, fold, seed).metrics,
            [TESTED_RUN],
        ),
    output:
        bundle=directory(str(RESULTS.bundle.root)),
    log:
        str(RESULTS.log("publish", "bundle")),
    benchmark:
        str(RESULTS.benchmark("publish", "bundle"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        version=version("publish"),
        settings=settings("publish", colors=True),
        rows=sheet_rows(),
        sheet=untracked(SHEET),
        results=folder_of("input.gate"),
    message:
        "Bundle the shared model with its recipe, scores and card"
    shell:
        "exec cityheads publish --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --results {params.results:q} --out {output.bundle:q}"


rule publish_catalog:
    input:
        dataset=datasets(FOLDS[:1]),
        store=rules.pack_store.output,
        scenes=rules.pack_store.input.scenes,
        chips=[
            chip
            for parent in PARENTS
            for chip in pieces(MODALITIES + [CLOUD_MASK] + masks_of(LABELS), parent)
        ],
        readings=of_parents(lambda parent: RESULTS.parent(parent).reading),
    output:
        catalog=str(RESULTS.stac),
    log:
        str(RESULTS.log("publish_catalog", "catalog")),
    benchmark:
        str(RESULTS.benchmark("publish_catalog", "catalog"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        config=untracked(CONFIG),
        version=version("publish_catalog"),
        settings=settings("publish_catalog", colors=True),
        scenes=folder_of("input.scenes"),
        parents_dir=folder_of("input.readings", up=2),
        chips=folder_of("input.chips", up=2),
        dataset=folder_of("input.dataset"),
        out=folder_of("output.catalog"),
    message:
        "Describe the dataset as a static STAC catalogue"
    shell:
        "exec cityheads publish_catalog --config {params.config:q} --log {log:q}"
        " --scenes {params.scenes:q} --parents-dir {params.parents_dir:q} --chips {params.chips:q}"
        " --dataset {params.dataset:q} --out {params.out:q}"
