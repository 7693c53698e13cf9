# All sub-chips accounted for, split by parents, packed for training.


rule assemble_dataset:
    input:
        parents=SHEET,
        scenes=expand(f"{RESULTS}/scenes/{{parent}}.json", parent=PARENTS),
        quality=expand(f"{RESULTS}/quality/{{parent}}.json", parent=PARENTS),
        chips=expand(
            pieces(MODALITIES + [f"MASK_{label}" for label in LABELS]), parent=PARENTS
        ),
    output:
        store=expand(
            f"{RESULTS}/dataset/store/{{layer}}.npy",
            layer=MODALITIES + [f"MASK_{label}" for label in LABELS],
        ),
        index=f"{RESULTS}/dataset/store/index.json",
        splits=f"{RESULTS}/dataset/splits.json",
        classes=f"{RESULTS}/dataset/classes.json",
        statistics=f"{RESULTS}/dataset/statistics.json",
        manifest=f"{RESULTS}/dataset/chips.parquet",
    log:
        f"{RESULTS}/logs/assemble_dataset/dataset.log",
    benchmark:
        f"{RESULTS}/benchmarks/assemble_dataset/dataset.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        settings=settings("assemble_dataset"),
        code=code("assemble_dataset"),
        config=CONFIG,
        scenes=folder_of("input.scenes"),
        quality=folder_of("input.quality"),
        chips=folder_of("input.chips", up=2),
        out=folder_of("output.manifest"),
    message:
        "Account for all sub-chips, deal the splits, pack the dataset"
    shell:
        "cityheads assemble_dataset --config {params.config} --log {log}"
        " --parents {input.parents} --scenes {params.scenes} --quality {params.quality} --chips {params.chips}"
        " --out {params.out}"


rule check_labels:
    input:
        parents=SHEET,
        dataset=rules.assemble_dataset.output,
        imagery=expand(f"{RESULTS}/parents/{{parent}}/S2L2A.tif", parent=PARENTS),
        masks=expand(
            f"{RESULTS}/parents/{{parent}}/MASK_{{label}}.tif",
            parent=PARENTS,
            label=LABELS,
        ),
    output:
        picture=f"{RESULTS}/labels/check.png",
        found=f"{RESULTS}/labels/check.json",
    log:
        f"{RESULTS}/logs/check_labels/labels.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_labels/labels.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=settings("check_labels"),
        code=code("check_labels"),
        config=CONFIG,
        results=folder_of("output.found", up=2),
    message:
        "Compare the labels with each other and with the imagery"
    shell:
        "cityheads check_labels --config {params.config} --log {log}"
        " --parents {input.parents} --results {params.results} --picture {output.picture} --out {output.found}"
