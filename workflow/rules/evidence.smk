# The verdict, the figures, the report.

EVALUATED = expand(
    f"{RESULTS}/evaluation/{{run}}/{{seed}}/metrics.json", run=RUNS, seed=SEEDS
)


rule compare:
    input:
        metrics=expand(
            f"{RESULTS}/evaluation/{{run}}/{{seed}}/metrics.json",
            run=COMPARED,
            seed=SEEDS,
        ),
    output:
        gate=f"{RESULTS}/gate.json",
        page=report(
            f"{RESULTS}/verdict.md",
            caption="../report/verdict.rst",
            category="Verdict",
        ),
    log:
        f"{RESULTS}/logs/compare/gate.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare/gate.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        settings=settings("compare"),
        code=code("compare"),
        config=CONFIG,
        evaluation=folder_of("input.metrics", up=3),
    message:
        "Compare {GATE_RUN} with its single-task baselines"
    shell:
        "cityheads compare --config {params.config} --log {log}"
        " --evaluation {params.evaluation} --page {output.page} --out {output.gate}"


rule draw_figures:
    input:
        parents=SHEET,
        dataset=rules.assemble_dataset.output,
        layers=expand(f"{RESULTS}/parents/{{parent}}/S2L2A.tif", parent=PARENTS),
        history=expand(
            f"{RESULTS}/runs/{{run}}/{{seed}}/history.csv", run=RUNS, seed=SEEDS
        ),
        evaluated=EVALUATED,
        gate=rules.compare.output.gate,
    output:
        figures=report(
            directory(f"{RESULTS}/figures"),
            patterns=["{name}.png"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        f"{RESULTS}/logs/draw_figures/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figures/figures.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        settings=settings("draw_figures"),
        code=code("draw_figures"),
        config=CONFIG,
        results=folder_of("input.gate"),
    message:
        "Draw the figures"
    shell:
        "cityheads draw_figures --config {params.config} --log {log}"
        " --parents {input.parents} --results {params.results} --out {output.figures}"


rule report:
    input:
        dataset=rules.assemble_dataset.output,
        scenes=rules.assemble_dataset.input.scenes,
        readings=expand(f"{RESULTS}/parents/{{parent}}/reading.json", parent=PARENTS),
        summaries=expand(f"{RESULTS}/labels/{{label}}/summary.json", label=FOOTPRINTS),
        training=expand(
            f"{RESULTS}/runs/{{run}}/{{seed}}/{{file}}.json",
            run=RUNS,
            seed=SEEDS,
            file=["model", "training", "environment"],
        ),
        evaluated=EVALUATED,
        gate=rules.compare.output.gate,
        figures=rules.draw_figures.output.figures,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/report.tsv"
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=settings("report"),
        code=code("report"),
        config=CONFIG,
        results=folder_of("input.gate"),
    message:
        "Write the report to {output}"
    shell:
        "cityheads report --config {params.config} --log {log} --results {params.results} --out {output}"
