# What a detector needs before the first trial: here, its threshold.


rule calibrate_threshold:
    output:
        threshold="<results>/thresholds/{experiment}/{setting}.json",
    log:
        "<logs>/calibrate_threshold/{experiment}/{setting}.log",
    benchmark:
        "<benchmarks>/calibrate_threshold/{experiment}/{setting}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        setting=setting_of,
        seed=config["seed"],
        size=config["calibration"],
        code=stage_code("calibrate_threshold"),
    message:
        "Calibrating the threshold of {wildcards.experiment} at {wildcards.setting}"
    script:
        "../stages/calibrate_threshold.py"
