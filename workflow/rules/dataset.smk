# All sub-chips accounted for and packed for training, then split by parents, once per fold.


rule pack_store:
    input:
        scenes=of_parents(RESULTS.scene_choice),
        quality=of_parents(RESULTS.chip_quality),
        chips=[
            chip
            for parent in PARENTS
            for chip in pieces(MODALITIES + [CLOUD_MASK] + masks_of(LEARNT), parent)
        ],
    output:
        store=[
            str(RESULTS.store.array(layer)) for layer in MODALITIES + masks_of(LEARNT)
        ],
        table=str(RESULTS.store.subchips),
        index=str(RESULTS.store.index),
    log:
        str(RESULTS.log("pack_store", "store")),
    benchmark:
        str(RESULTS.benchmark("pack_store", "store"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        config=untracked(CONFIG),
        version=version("pack_store"),
        settings=settings("pack_store", learnt=True),
        places=place(*PARENTS),
        sheet=untracked(SHEET),
        scenes=folder_of("input.scenes"),
        quality=folder_of("input.quality"),
        chips=folder_of("input.chips", up=2),
        out=folder_of("output.index"),
    message:
        "Account for all sub-chips, pack those that are good enough"
    shell:
        "exec cityheads pack_store --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --scenes {params.scenes:q} --quality {params.quality:q} --chips {params.chips:q}"
        " --out {params.out:q}"


rule assign_splits:
    input:
        # kept when labels, heads or pixels change: who is tested stays, and scores compare. Not ancient where something
        # else is asked: Snakemake looks at no parameters downstream of a job that runs, and a new row would be missed
        table=(
            ancient(rules.pack_store.output.table)
            if ASSIGNED
            else rules.pack_store.output.table
        ),
    output:
        str(RESULTS.assignment),
    log:
        str(RESULTS.log("assign_splits", "splits")),
    benchmark:
        str(RESULTS.benchmark("assign_splits", "splits"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        settings=settings("assign_splits"),
        rows=split_rows(),
        sheet=untracked(SHEET),
    message:
        "Seek which parents are held out"
    shell:
        "exec cityheads assign_splits --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --table {input.table:q} --out {output:q}"


rule assemble_dataset:
    input:
        store=rules.pack_store.output,
        assignment=rules.assign_splits.output,
    output:
        splits=str(RESULTS.dataset("{fold}").splits),
        classes=str(RESULTS.dataset("{fold}").classes),
        statistics=str(RESULTS.dataset("{fold}").statistics),
        manifest=str(RESULTS.dataset("{fold}").chips),
    log:
        str(RESULTS.log("assemble_dataset", "{fold}")),
    benchmark:
        str(RESULTS.benchmark("assemble_dataset", "{fold}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        config=untracked(CONFIG),
        version=version("assemble_dataset"),
        settings=settings("assemble_dataset", learnt=True),
        rows=split_rows(),
        sheet=untracked(SHEET),
        out=folder_of("output.manifest"),
    message:
        "Assign the splits of fold {wildcards.fold}"
    shell:
        "exec cityheads assemble_dataset --config {params.config:q} --log {log:q}"
        " --fold {wildcards.fold} --parents {params.sheet:q} --assignment {input.assignment:q} --out {params.out:q}"


rule check_labels:
    input:
        dataset=datasets(FOLDS[:1]),
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
