# From a catalogue to one raster per parent and modality.


if SIMULATED:

    rule simulate_archive:
        input:
            parents=SHEET,
        output:
            catalog=CATALOG,
            footprints=f"{RESULTS}/archive/footprints.geojson",
            boundary=f"{RESULTS}/archive/boundary.geojson",
        log:
            f"{RESULTS}/logs/simulate_archive/archive.log",
        benchmark:
            f"{RESULTS}/benchmarks/simulate_archive/archive.tsv"
        conda:
            "../../envs/cityheads.yaml"
        threads: 2
        resources:
            mem_mb=1500,
        params:
            settings=settings("simulate_archive"),
            code=code("simulate_archive"),
            config=CONFIG,
            out=folder_of("output.catalog"),
        message:
            "Simulate an archive of {SHEET} (no real data)"
        shell:
            "cityheads simulate_archive --config {params.config} --log {log}"
            " --parents {input.parents} --out {params.out}"


rule select_scenes:
    input:
        parents=SHEET,
        catalog=CATALOG if SIMULATED else [],
    output:
        f"{RESULTS}/scenes/{{parent}}.json",
    log:
        f"{RESULTS}/logs/select_scenes/{{parent}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/select_scenes/{{parent}}.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
        network=1,
    params:
        settings=settings("select_scenes", scene_search=True),
        code=code("select_scenes"),
        config=CONFIG,
        catalog=lambda wildcards: CATALOG,
    message:
        "Choose the scenes of parent {wildcards.parent}"
    shell:
        "cityheads select_scenes --config {params.config} --log {log}"
        " --parents {input.parents} --parent {wildcards.parent} --catalog {params.catalog:q} --out {output}"


rule read_parent:
    input:
        parents=SHEET,
        scenes=f"{RESULTS}/scenes/{{parent}}.json",
    output:
        layers=expand(
            f"{RESULTS}/parents/{{{{parent}}}}/{{layer}}.tif",
            layer=MODALITIES + ["SCL"] * HAS_SCL,
        ),
        reading=f"{RESULTS}/parents/{{parent}}/reading.json",
    log:
        f"{RESULTS}/logs/read_parent/{{parent}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/read_parent/{{parent}}.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: config["archive"]["synthesis"]["threads"] if SYNTHESIS else 1
    resources:
        # the generator and a tokenizer, and the files that their weights come from
        mem_mb=6000 if SYNTHESIS else 1000,
        network=1,
    params:
        settings=settings("read_parent"),
        code=code("read_parent"),
        config=CONFIG,
        out=folder_of("output.reading"),
    message:
        "Read all modalities of parent {wildcards.parent} onto one grid"
    shell:
        "cityheads read_parent --config {params.config} --log {log}"
        " --parents {input.parents} --parent {wildcards.parent} --scenes {input.scenes} --out {params.out}"
