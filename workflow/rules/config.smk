# The config with all its defaults, as a file that the jobs read.


rule resolve_config:
    output:
        CONFIG,
    log:
        str(RESULTS.log("resolve_config", "config")),
    benchmark:
        str(RESULTS.benchmark("resolve_config", "config"))
    conda:
        "../../envs/cityheads.yaml"
    threads: 1
    resources:
        mem_mb=200,
    params:
        version=version("resolve_config"),
        resolved=canonical_json(CITY.to_dict()),
    message:
        "Write the config with all its defaults to {output}"
    shell:
        "exec cityheads resolve_config --log {log} --text {params.resolved:q} --out {output:q}"
