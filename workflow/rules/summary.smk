# From trials to rates.


rule summarize_rates:
    input:
        rows=trial_files,
    output:
        rates="<results>/rates/{experiment}.csv",
    log:
        "<logs>/summarize_rates/{experiment}.log",
    benchmark:
        "<benchmarks>/summarize_rates/{experiment}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cells=lambda wildcards: EXPERIMENTS[wildcards.experiment].cells,
        settings=lambda wildcards: EXPERIMENTS[wildcards.experiment].settings,
        measure=lambda wildcards: EXPERIMENTS[wildcards.experiment].measure,
        alpha=config["alpha"],
        level=config["confidence"],
        code=stage_code("summarize_rates"),
    message:
        "Rates of {wildcards.experiment}"
    script:
        "../stages/summarize_rates.py"
