# Parents into sub-chips.


rule slice_parent:
    input:
        parents=SHEET,
        layers=rules.read_parent.output.layers,
    output:
        chips=pieces(MODALITIES),
        quality=f"{RESULTS}/quality/{{parent}}.json",
    log:
        f"{RESULTS}/logs/slice_parent/{{parent}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/slice_parent/{{parent}}.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        settings=settings("slice_parent"),
        code=code("slice_parent"),
        config=CONFIG,
        parent_dir=folder_of("input.layers"),
        chips=folder_of("output.chips", up=2),
    message:
        "Slice parent {wildcards.parent} into sub-chips"
    shell:
        "cityheads slice_parent --config {params.config} --log {log}"
        " --parents {input.parents} --parent {wildcards.parent} --parent-dir {params.parent_dir}"
        " --chips {params.chips} --out {output.quality}"
