# The verdict, the figures, the report.
from cityheads.core.modalities import removable

EVALUATED = expand(
    f"{RESULTS}/evaluation/{{run}}/{{seed}}/metrics.json", run=RUNS, seed=SEEDS
)
# Figure and the caption that it shares with its like, if any.
FIGURES = {
    name: name
    for name in (
        "delta",
        "map",
        "curves_score",
        "curves_loss",
        "balance",
        "dropped",
        "timings",
    )
}
if config["evaluation"]["modality_ablation"] and removable(
    config["model"]["modalities"]
):
    FIGURES["modality_ablation"] = "modality_ablation"
FIGURES |= {
    f"{kind}_{head}": kind
    for kind in ("panels", "confusion")
    for head in config["runs"][GATE_RUN]["heads"]
}


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
        gate=rules.compare.output.gate,
        dataset=rules.assemble_dataset.output,
        boundaries=expand(
            f"{RESULTS}/labels/{{label}}/boundary.parquet", label=FOOTPRINTS
        ),
        trained=expand(
            f"{RESULTS}/runs/{{run}}/{{seed}}/{{file}}",
            run=RUNS,
            seed=SEEDS,
            file=["history.csv", "training.json"],
        ),
        evaluated=EVALUATED,
    output:
        **{
            name: report(
                f"{RESULTS}/figures/{name}.png",
                caption=f"../report/{caption}.rst",
                category="Figures",
                labels={"figure": name.replace("_", " ")},
            )
            for name, caption in FIGURES.items()
        },
        listed=f"{RESULTS}/figures/figures.json",
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
        out=folder_of("output.listed"),
    message:
        "Draw the figures"
    shell:
        "cityheads draw_figures --config {params.config} --log {log}"
        " --parents {input.parents} --results {params.results} --out {params.out}"


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
        figures=rules.draw_figures.output,
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
