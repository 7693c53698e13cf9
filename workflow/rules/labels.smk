# Label layers: one rule per kind, any number of layers of a kind.


if FOOTPRINTS:

    rule prepare_footprints:
        input:
            parents=SHEET,
            source=vector_input("source", "footprints.geojson"),
            boundary=vector_input("boundary", "boundary.geojson"),
        output:
            footprints=f"{RESULTS}/labels/{{label}}/footprints.parquet",
            boundary=f"{RESULTS}/labels/{{label}}/boundary.parquet",
            summary=f"{RESULTS}/labels/{{label}}/summary.json",
        log:
            f"{RESULTS}/logs/prepare_footprints/{{label}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/prepare_footprints/{{label}}.tsv"
        wildcard_constraints:
            label="|".join(FOOTPRINTS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=3000,
        params:
            settings=settings("prepare_footprints", of_label),
            code=code("prepare_footprints"),
            config=CONFIG,
        message:
            "Clean the footprints of {wildcards.label}"
        shell:
            "cityheads prepare_footprints --config {params.config} --log {log}"
            " --parents {input.parents} --label {wildcards.label} --source {input.source:q} --boundary {input.boundary:q}"
            " --out {output.footprints} --boundary-out {output.boundary} --summary {output.summary}"

    rule rasterize_buildings:
        input:
            parents=SHEET,
            footprints=rules.prepare_footprints.output.footprints,
            boundary=rules.prepare_footprints.output.boundary,
            scenes=lambda wildcards: (
                f"{RESULTS}/scenes/{wildcards.parent}.json"
                if LABELS[wildcards.label]["standing_only"]
                else []
            ),
        output:
            chips=pieces(["MASK_{label}"]),
            mask=f"{RESULTS}/parents/{{parent}}/MASK_{{label}}.tif",
        log:
            f"{RESULTS}/logs/rasterize_buildings/{{parent}}_{{label}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/rasterize_buildings/{{parent}}_{{label}}.tsv"
        wildcard_constraints:
            label=only(name for name in FOOTPRINTS if name not in FRACTIONS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            settings=settings("rasterize_buildings", of_label),
            code=code("rasterize_buildings"),
            config=CONFIG,
            chips=folder_of("output.chips", up=2),
            scenes=lambda wildcards, input: (
                f"--scenes {input.scenes}" if input.scenes else ""
            ),
        message:
            "Rasterize {wildcards.label} of parent {wildcards.parent}"
        shell:
            "cityheads rasterize_buildings --config {params.config} --log {log}"
            " --parents {input.parents} --parent {wildcards.parent} --label {wildcards.label}"
            " --footprints {input.footprints} --boundary {input.boundary} --chips {params.chips} --out {output.mask}"
            " {params.scenes}"

    use rule rasterize_buildings as rasterize_buildings_and_fractions with:
        output:
            chips=pieces(["MASK_{label}"]),
            fractions=pieces(["FRACTION_{label}"]),
            fraction=f"{RESULTS}/parents/{{parent}}/FRACTION_{{label}}.tif",
            mask=f"{RESULTS}/parents/{{parent}}/MASK_{{label}}.tif",
        wildcard_constraints:
            label=only(FRACTIONS),


if LANDCOVER:

    rule rasterize_landcover:
        input:
            parents=SHEET,
            scenes=f"{RESULTS}/scenes/{{parent}}.json",
        output:
            chips=pieces(["MASK_{label}"]),
            mask=f"{RESULTS}/parents/{{parent}}/MASK_{{label}}.tif",
        log:
            f"{RESULTS}/logs/rasterize_landcover/{{parent}}_{{label}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/rasterize_landcover/{{parent}}_{{label}}.tsv"
        wildcard_constraints:
            label="|".join(LANDCOVER),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=500,
            network=1,
        params:
            settings=settings("rasterize_landcover", of_label),
            code=code("rasterize_landcover"),
            config=CONFIG,
            chips=folder_of("output.chips", up=2),
        message:
            "Map land cover to {wildcards.label} for parent {wildcards.parent}"
        shell:
            "cityheads rasterize_landcover --config {params.config} --log {log}"
            " --parents {input.parents} --parent {wildcards.parent} --label {wildcards.label}"
            " --scenes {input.scenes} --chips {params.chips} --out {output.mask}"


if LAYERS:

    rule rasterize_layer:
        input:
            parents=SHEET,
            source=lambda wildcards: LABELS[wildcards.label]["source"],
            boundary=lambda wildcards: LABELS[wildcards.label]["boundary"] or [],
        output:
            chips=pieces(["MASK_{label}"]),
            mask=f"{RESULTS}/parents/{{parent}}/MASK_{{label}}.tif",
        log:
            f"{RESULTS}/logs/rasterize_layer/{{parent}}_{{label}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/rasterize_layer/{{parent}}_{{label}}.tsv"
        wildcard_constraints:
            label="|".join(LAYERS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            settings=settings("rasterize_layer", of_label),
            code=code("rasterize_layer"),
            config=CONFIG,
            chips=folder_of("output.chips", up=2),
            boundary=lambda wildcards, input: (
                f"--boundary '{input.boundary}'" if input.boundary else ""
            ),
        message:
            "Rasterize {wildcards.label} of parent {wildcards.parent}"
        shell:
            "cityheads rasterize_layer --config {params.config} --log {log}"
            " --parents {input.parents} --parent {wildcards.parent} --label {wildcards.label}"
            " --source {input.source:q} --chips {params.chips} --out {output.mask} {params.boundary}"
