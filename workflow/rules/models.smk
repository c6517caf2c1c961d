# What a detector needs before the first trial: its threshold, or its trained network.


rule calibrate:
    output:
        scores="<results>/calibration/{experiment}.parquet",
    log:
        "<logs>/calibrate/{experiment}.log",
    benchmark:
        "<benchmarks>/calibrate/{experiment}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        kind=lambda wildcards: experiment_of(wildcards).kind,
        settings=settings_of,
        seed=config["seed"],
        size=config["calibration"],
        code=lambda wildcards: calibration_code(wildcards.experiment),
    message:
        "Scores of normal instances for {wildcards.experiment}"
    script:
        "../stages/calibrate.py"


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
