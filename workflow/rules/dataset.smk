# All sub-chips accounted for, split by parents, packed for training.


rule assemble_dataset:
    input:
        scenes=of_parents(RESULTS.scene_choice),
        quality=of_parents(RESULTS.chip_quality),
        chips=[
            chip
            for parent in PARENTS
            for chip in pieces(MODALITIES + masks_of(LEARNT), parent)
        ],
    output:
        store=[
            str(RESULTS.dataset.store.array(layer))
            for layer in MODALITIES + masks_of(LEARNT)
        ],
        index=str(RESULTS.dataset.store.index),
        splits=str(RESULTS.dataset.splits),
        classes=str(RESULTS.dataset.classes),
        statistics=str(RESULTS.dataset.statistics),
        manifest=str(RESULTS.dataset.chips),
    log:
        str(RESULTS.log("assemble_dataset", "dataset")),
    benchmark:
        str(RESULTS.benchmark("assemble_dataset", "dataset"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        config=untracked(CONFIG),
        version=version("assemble_dataset"),
        settings=settings("assemble_dataset", learnt=True),
        rows=sheet_rows(),
        sheet=untracked(SHEET),
        scenes=folder_of("input.scenes"),
        quality=folder_of("input.quality"),
        chips=folder_of("input.chips", up=2),
        out=folder_of("output.manifest"),
    message:
        "Account for all sub-chips, assign the splits, pack the dataset"
    shell:
        "exec cityheads assemble_dataset --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --scenes {params.scenes:q} --quality {params.quality:q} --chips {params.chips:q}"
        " --out {params.out:q}"


rule check_labels:
    input:
        dataset=rules.assemble_dataset.output,
        imagery=of_parents(lambda parent: RESULTS.parent(parent).raster("S2L2A")),
        masks=[
            str(RESULTS.parent(parent).raster(layer))
            for parent in PARENTS
            for layer in masks_of(LABELS)
        ],
    output:
        picture=str(RESULTS.label_check_figure),
        found=str(RESULTS.label_check),
    log:
        str(RESULTS.log("check_labels", "labels")),
    benchmark:
        str(RESULTS.benchmark("check_labels", "labels"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        config=untracked(CONFIG),
        version=version("check_labels"),
        settings=settings("check_labels", colors=True),
        rows=sheet_rows(),
        sheet=untracked(SHEET),
        results=folder_of("output.found", up=2),
    message:
        "Compare the labels with each other and with the imagery"
    shell:
        "exec cityheads check_labels --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --results {params.results:q} --picture {output.picture:q} --out {output.found:q}"
