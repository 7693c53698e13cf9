# Parents into sub-chips.


rule slice_parent:
    input:
        layers=rules.read_parent.output.layers,
    output:
        chips=pieces(MODALITIES + [CLOUD_MASK]),
        quality=str(RESULTS.chip_quality("{parent}")),
    log:
        str(RESULTS.log("slice_parent", "{parent}")),
    benchmark:
        str(RESULTS.benchmark("slice_parent", "{parent}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        version=version("slice_parent"),
        settings=settings("slice_parent"),
        place=own_place,
        sheet=untracked(SHEET),
        parent_dir=folder_of("input.layers"),
        chips=folder_of("output.chips", up=2),
    message:
        "Slice parent {wildcards.parent} into sub-chips"
    shell:
        "exec cityheads slice_parent --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --parent {wildcards.parent} --parent-dir {params.parent_dir:q}"
        " --chips {params.chips:q} --out {output.quality:q}"
