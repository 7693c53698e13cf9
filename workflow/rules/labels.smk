# Label layers: one rule per kind, any number of layers of a kind.


if DOWNLOADS:

    rule fetch_footprints:
        output:
            users("{download}"),
        log:
            str(RESULTS.log("fetch_footprints", "{download}")),
        benchmark:
            str(RESULTS.benchmark("fetch_footprints", "{download}"))
        wildcard_constraints:
            download=only(re.escape(path) for path in DOWNLOADS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            network=1,
        params:
            config=untracked(CONFIG),
            version=version("fetch_footprints"),
            settings=settings_of_download,
            sheet=untracked(SHEET),
        message:
            "Fetch {wildcards.download}"
        shell:
            "exec cityheads fetch_footprints --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --out {output:q}"


if FOOTPRINTS:

    rule prepare_footprints:
        input:
            source=footprint_source,
            boundary=footprint_boundary,
        output:
            footprints=str(RESULTS.label("{label}").footprints),
            boundary=str(RESULTS.label("{label}").boundary),
            summary=str(RESULTS.label("{label}").summary),
        log:
            str(RESULTS.log("prepare_footprints", "{label}")),
        benchmark:
            str(RESULTS.benchmark("prepare_footprints", "{label}"))
        wildcard_constraints:
            label=only(FOOTPRINTS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=3000,
        params:
            config=untracked(CONFIG),
            version=version("prepare_footprints"),
            settings=settings(
                "prepare_footprints",
                label_keys=[
                    "feature_codes",
                    "ground_feature_codes",
                    "ignore_statuses",
                    "where",
                    "layer",
                    "boundary_layer",
                    "max_lost_percent",
                ],
            ),
            # what lies far from all parents is not prepared; one more row in the same area changes nothing
            areas=sorted({f"{row.epsg} {area(row, GRID)}" for row in ROWS.values()}),
            sheet=untracked(SHEET),
        message:
            "Clean the footprints of {wildcards.label}"
        shell:
            "exec cityheads prepare_footprints --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --label {wildcards.label} --source {input.source:q} --boundary {input.boundary:q}"
            " --out {output.footprints:q} --boundary-out {output.boundary:q} --summary {output.summary:q}"

    rule rasterize_buildings:
        input:
            footprints=rules.prepare_footprints.output.footprints,
            boundary=rules.prepare_footprints.output.boundary,
            scenes=branch(
                lambda wildcards: LABELS[wildcards.label].standing_only,
                then=rules.select_scenes.output,
                otherwise=[],
            ),
        output:
            chips=pieces([mask_layer("{label}")]),
            mask=str(RESULTS.parent("{parent}").raster(mask_layer("{label}"))),
        log:
            str(RESULTS.log("rasterize_buildings", "{parent}_{label}")),
        benchmark:
            str(RESULTS.benchmark("rasterize_buildings", "{parent}_{label}"))
        wildcard_constraints:
            label=only(name for name in FOOTPRINTS if name not in FRACTIONS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            config=untracked(CONFIG),
            version=version("rasterize_buildings"),
            settings=settings("rasterize_buildings", label=True),
            place=own_place,
            sheet=untracked(SHEET),
            chips=folder_of("output.chips", up=2),
            scenes=lambda wildcards, input: (
                f"--scenes {quote(str(input.scenes))}" if input.scenes else ""
            ),
        message:
            "Rasterize {wildcards.label} of parent {wildcards.parent}"
        shell:
            "exec cityheads rasterize_buildings --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --parent {wildcards.parent} --label {wildcards.label}"
            " --footprints {input.footprints:q} --boundary {input.boundary:q} --chips {params.chips:q}"
            " --out {output.mask:q} {params.scenes}"

    use rule rasterize_buildings as rasterize_buildings_and_fractions with:
        output:
            chips=pieces([mask_layer("{label}")]),
            fractions=pieces([fraction_layer("{label}")]),
            fraction=str(RESULTS.parent("{parent}").raster(fraction_layer("{label}"))),
            mask=str(RESULTS.parent("{parent}").raster(mask_layer("{label}"))),
        wildcard_constraints:
            label=only(FRACTIONS),


if LANDCOVER:

    rule rasterize_landcover:
        input:
            scenes=rules.select_scenes.output,
        output:
            chips=pieces([mask_layer("{label}")]),
            mask=str(RESULTS.parent("{parent}").raster(mask_layer("{label}"))),
        log:
            str(RESULTS.log("rasterize_landcover", "{parent}_{label}")),
        benchmark:
            str(RESULTS.benchmark("rasterize_landcover", "{parent}_{label}"))
        wildcard_constraints:
            label=only(LANDCOVER),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=500,
            network=1,
        params:
            config=untracked(CONFIG),
            version=version("rasterize_landcover"),
            settings=settings("rasterize_landcover", label=True),
            place=own_place,
            sheet=untracked(SHEET),
            chips=folder_of("output.chips", up=2),
        message:
            "Map land cover to {wildcards.label} for parent {wildcards.parent}"
        shell:
            "exec cityheads rasterize_landcover --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --parent {wildcards.parent} --label {wildcards.label}"
            " --scenes {input.scenes:q} --chips {params.chips:q} --out {output.mask:q}"


if LAYERS:

    rule rasterize_layer:
        input:
            source=lambda wildcards: users(LABELS[wildcards.label].source),
            boundary=lambda wildcards: (
                users(LABELS[wildcards.label].boundary)
                if getattr(LABELS[wildcards.label], "boundary", None)
                else []
            ),
        output:
            chips=pieces([mask_layer("{label}")]),
            mask=str(RESULTS.parent("{parent}").raster(mask_layer("{label}"))),
        log:
            str(RESULTS.log("rasterize_layer", "{parent}_{label}")),
        benchmark:
            str(RESULTS.benchmark("rasterize_layer", "{parent}_{label}"))
        wildcard_constraints:
            label=only(LAYERS),
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            config=untracked(CONFIG),
            version=version("rasterize_layer"),
            settings=settings("rasterize_layer", label=True),
            place=own_place,
            sheet=untracked(SHEET),
            chips=folder_of("output.chips", up=2),
            boundary=lambda wildcards, input: (
                f"--boundary {quote(str(input.boundary))}" if input.boundary else ""
            ),
        message:
            "Rasterize {wildcards.label} of parent {wildcards.parent}"
        shell:
            "exec cityheads rasterize_layer --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --parent {wildcards.parent} --label {wildcards.label}"
            " --source {input.source:q} --chips {params.chips:q} --out {output.mask:q} {params.boundary}"
