# What a detector needs before the first trial: its threshold, or its trained network.


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


rule train_diffusion:
    output:
        unet=directory("<results>/models/size={size}_activation={activation}_replica={replica}"),
        loss="<results>/training/size={size}_activation={activation}_replica={replica}.csv",
    log:
        "<logs>/train_diffusion/size={size}_activation={activation}_replica={replica}.log",
    benchmark:
        "<benchmarks>/train_diffusion/size={size}_activation={activation}_replica={replica}.tsv"
    wildcard_constraints:
        size="[0-9]+",
        activation="[a-z]+",
        replica="[0-9]+",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=1440,
    params:
        training=config["training"],
        seed=config["seed"],
        code=stage_code("train_diffusion"),
    message:
        "Training a diffusion model for images of {wildcards.size} x {wildcards.size}"
    script:
        "../stages/train_diffusion.py"
