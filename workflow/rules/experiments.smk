# Experiments: the rows of a sheet are runs of their own, through the same rules. Scored on validation only, and only where
# `snakemake leaderboard` asks for it.


rule leaderboard:
    input:
        metrics=of_leaderboard(
            lambda run, fold, seed: RESULTS.evaluation(run, fold, seed, "val").metrics
        ),
        training=of_leaderboard(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).training
        ),
        environment=of_leaderboard(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).environment
        ),
    output:
        table=str(RESULTS.leaderboard.table),
        csv=str(RESULTS.leaderboard.csv),
        record=str(RESULTS.leaderboard.record),
        page=str(RESULTS.leaderboard.page),
    log:
        str(RESULTS.log("leaderboard", "leaderboard")),
    benchmark:
        str(RESULTS.benchmark("leaderboard", "leaderboard"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        version=version("leaderboard"),
        settings=settings("leaderboard"),
        rows=str(EXPERIMENTS),
        sheet=untracked(
            f" --experiments {quote(CITY.experiments)}" if EXPERIMENTS else ""
        ),
        results=untracked(placed(RESULTS.root)),
        out=folder_of("output.record"),
    message:
        "Put runs and experiments side by side: {output.page}"
    shell:
        "exec cityheads leaderboard --config {params.config:q} --log {log:q}"
        " --results {params.results:q}{params.sheet} --out {params.out:q}"
