# From a catalogue to one raster per parent and modality.

# what the choices of all parents keep to; a shipped choice keeps to what it was made with
TOGETHER = CITY.archive.together.asked_for and CITY.archive.frozen_scenes is None

if SIMULATED:

    rule simulate_archive:
        output:
            catalog=str(RESULTS.archive.catalog),
            footprints=str(RESULTS.archive.footprints),
            boundary=str(RESULTS.archive.boundary),
        log:
            str(RESULTS.log("simulate_archive", "archive")),
        benchmark:
            str(RESULTS.benchmark("simulate_archive", "archive"))
        conda:
            "../../envs/cityheads.yaml"
        threads: 2
        resources:
            mem_mb=1500,
        params:
            config=untracked(CONFIG),
            version=version("simulate_archive"),
            settings=settings("simulate_archive", reading=False),
            places=place(*PARENTS),
            sheet=untracked(SHEET),
            out=folder_of("output.catalog"),
        message:
            "Simulate an archive (no real data)"
        shell:
            "exec cityheads simulate_archive --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} --out {params.out:q}"


if TOGETHER:

    rule agree_scenes:
        input:
            catalog=str(RESULTS.archive.catalog) if SIMULATED else [],
        output:
            str(RESULTS.agreement),
        log:
            str(RESULTS.log("agree_scenes", "all")),
        benchmark:
            str(RESULTS.benchmark("agree_scenes", "all"))
        conda:
            "../../envs/cityheads.yaml"
        threads: 1
        resources:
            mem_mb=500,
            network=1,
        params:
            config=untracked(CONFIG),
            # neither a version nor the places of the parents: what is agreed on is kept, and a parent that is added keeps to
            # it; it changes when the question does, and when asked for (--forcerun agree_scenes select_scenes)
            settings=settings("agree_scenes", scene_search=True),
            sheet=untracked(SHEET),
            catalog=catalog_option,
        message:
            "Agree on dates and orbit for the scenes of all parents"
        shell:
            "exec cityheads agree_scenes --config {params.config:q} --log {log:q}"
            " --parents {params.sheet:q} {params.catalog} --out {output:q}"


rule select_scenes:
    input:
        catalog=str(RESULTS.archive.catalog) if SIMULATED else [],
        # ancient: an agreement that is made anew does not undo choices that exist
        agreement=ancient(str(RESULTS.agreement)) if TOGETHER else [],
    output:
        str(RESULTS.scene_choice("{parent}")),
    log:
        str(RESULTS.log("select_scenes", "{parent}")),
    benchmark:
        str(RESULTS.benchmark("select_scenes", "{parent}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
        network=1,
    params:
        config=untracked(CONFIG),
        # no version: an archive grows, so that a newer program would choose other scenes; a choice that exists is searched
        # again when its place or the question changes, and when asked for (--forcerun select_scenes)
        settings=settings("select_scenes", scene_search=True),
        place=own_place,
        sheet=untracked(SHEET),
        catalog=catalog_option,
        agreement=lambda wildcards, input: (
            f"--agreement {quote(str(input.agreement))}" if input.agreement else ""
        ),
    message:
        "Choose the scenes of parent {wildcards.parent}"
    shell:
        "exec cityheads select_scenes --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --parent {wildcards.parent} {params.catalog} {params.agreement} --out {output:q}"


rule read_parent:
    input:
        scenes=rules.select_scenes.output,
    output:
        layers=[
            str(RESULTS.parent("{parent}").raster(layer))
            for layer in MODALITIES
            + ["SCL"] * (CITY.archive.imagery.s2.scl_asset is not None)
            + ["CLD"] * (CITY.archive.imagery.s2.cloud_asset is not None)
        ],
        reading=str(RESULTS.parent("{parent}").reading),
    log:
        str(RESULTS.log("read_parent", "{parent}")),
    benchmark:
        str(RESULTS.benchmark("read_parent", "{parent}"))
    conda:
        "../../envs/cityheads.yaml"
    threads: CITY.archive.synthesis.threads if SYNTHESIS else 1
    resources:
        # the generator and a tokenizer, and the files that their weights come from
        mem_mb=6000 if SYNTHESIS else 1000,
        network=1,
    params:
        config=untracked(CONFIG),
        version=version("read_parent"),
        settings=settings("read_parent"),
        place=own_place,
        sheet=untracked(SHEET),
        out=folder_of("output.reading"),
    message:
        "Read all modalities of parent {wildcards.parent} onto one grid"
    shell:
        "exec cityheads read_parent --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --parent {wildcards.parent} --scenes {input.scenes:q} --out {params.out:q}"
