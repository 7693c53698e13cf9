# The verdict, the figures, the report.

EVALUATED = of_trainings(
    lambda run, fold, seed: RESULTS.evaluation(run, fold, seed).metrics
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
if CITY.evaluation.modality_ablation and removable(CITY.model.modalities):
    FIGURES["modality_ablation"] = "modality_ablation"
FIGURES |= {
    f"{kind}_{head}": kind
    for kind in ("panels", "confusion")
    for head in CITY.runs[TESTED_RUN].heads
}


rule compare:
    input:
        metrics=of_trainings(
            lambda run, fold, seed: RESULTS.evaluation(run, fold, seed).metrics,
            COMPARED,
        ),
        controls=CONTROL_METRICS,
        training=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).training, COMPARED
        ),
        environment=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).environment, COMPARED
        ),
    output:
        gate=str(RESULTS.gate),
        page=report(
            str(RESULTS.verdict_page),
            caption="../report/verdict.rst",
            category="Verdict",
        ),
    log:
        str(RESULTS.log("compare", "verdict")),
    benchmark:
        str(RESULTS.benchmark("compare", "verdict"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        config=untracked(CONFIG),
        version=version("compare"),
        settings=settings("compare"),
        evaluation=folder_of("input.metrics", up=4),
        results=folder_of("output.gate"),
    message:
        "Compare the shared model with its single-task baselines"
    shell:
        "exec cityheads compare --config {params.config:q} --log {log:q}"
        " --evaluation {params.evaluation:q} --results {params.results:q} --page {output.page:q} --out {output.gate:q}"


rule draw_figures:
    input:
        dataset=datasets(),
        store=rules.pack_store.output,
        gate=rules.compare.output.gate,
        boundaries=[str(RESULTS.label(label).boundary) for label in FOOTPRINTS],
        histories=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).history
        ),
        training=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).training
        ),
        evaluated=EVALUATED,
    output:
        **{
            name: report(
                str(RESULTS.figure(name)),
                caption=f"../report/{caption}.rst",
                category="Figures",
                labels={"figure": name.replace("_", " ")},
            )
            for name, caption in FIGURES.items()
        },
        listed=str(RESULTS.figure_list),
    log:
        str(RESULTS.log("draw_figures", "figures")),
    benchmark:
        str(RESULTS.benchmark("draw_figures", "figures"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        config=untracked(CONFIG),
        version=version("draw_figures"),
        settings=settings("draw_figures", colors=True),
        rows=sheet_rows(),
        sheet=untracked(SHEET),
        results=folder_of("input.gate"),
        out=folder_of("output.listed"),
    message:
        "Draw the figures"
    shell:
        "exec cityheads draw_figures --config {params.config:q} --log {log:q}"
        " --parents {params.sheet:q} --results {params.results:q} --out {params.out:q}"


rule report:
    input:
        dataset=datasets(),
        store=rules.pack_store.output,
        scenes=rules.pack_store.input.scenes,
        readings=of_parents(lambda parent: RESULTS.parent(parent).reading),
        summaries=[str(RESULTS.label(label).summary) for label in FOOTPRINTS],
        histories=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).history
        ),
        training=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).training
        ),
        environment=of_trainings(
            lambda run, fold, seed: RESULTS.run(run, fold, seed).environment
        ),
        evaluated=EVALUATED,
        counted=of_trainings(
            lambda run, fold, seed: RESULTS.evaluation(run, fold, seed).confusion,
            COMPARED,
        ),
        gate=rules.compare.output.gate,
        figures=rules.draw_figures.output,
    output:
        str(RESULTS.report),
    log:
        str(RESULTS.log("report", "report")),
    benchmark:
        str(RESULTS.benchmark("report", "report"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        config=untracked(CONFIG),
        version=version("report"),
        settings=settings("report", colors=True),
        results=folder_of("input.gate"),
    message:
        "Write the report to {output}"
    shell:
        "exec cityheads report --config {params.config:q} --log {log:q} --results {params.results:q} --out {output:q}"
