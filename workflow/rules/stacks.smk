# Whole images for localization: fetched, prepared and split by patient, and the detectors that are trained on them.


rule download_scans:
    output:
        folder=directory(str(Path(DATA, "{place}"))),
    log:
        "<logs>/download_scans/{place}.log",
    benchmark:
        "<benchmarks>/download_scans/{place}.tsv"
    wildcard_constraints:
        place="|".join(scans_to_download()) or "none",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        source=lambda wildcards: scans_to_download()[wildcards.place],
        data=lambda wildcards: DATA,
    message:
        "Fetching scans to {output.folder}"
    script:
        "../stages/download_scans.py"


rule prepare_stack:
    input:
        stack_folder,
    output:
        stack="<results>/stacks/{dataset}_size={size}.npz",
        manifest="<results>/stacks/{dataset}_size={size}.csv",
    log:
        "<logs>/prepare_stack/{dataset}_size={size}.log",
    benchmark:
        "<benchmarks>/prepare_stack/{dataset}_size={size}.tsv"
    wildcard_constraints:
        size="[0-9]+",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=240,
    params:
        entry=lambda wildcards: config["stacks"][wildcards.dataset],
        file=lambda wildcards: put_there(stack_path(wildcards.dataset)),
        data=DATA,
        seed=config["seed"],
        code=stage_code("prepare_stack"),
    message:
        "Checking and preparing the images {wildcards.dataset} at {wildcards.size} x {wildcards.size}"
    script:
        "../stages/prepare_stack.py"


rule train_detector:
    input:
        stack="<results>/stacks/{stack}.npz",
    output:
        network=directory("<results>/detectors/{stack}_{detector}"),
        loss="<results>/training/{stack}_{detector}.csv",
        examples="<results>/training/{stack}_{detector}.png",
    log:
        "<logs>/train_detector/{stack}_{detector}.log",
    benchmark:
        "<benchmarks>/train_detector/{stack}_{detector}.tsv"
    wildcard_constraints:
        stack="[a-z0-9_]+_size=[0-9]+",
        detector="autoencoder|diffusion",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=1440,
    params:
        training=lambda wildcards: config["detectors"][wildcards.detector],
        lineage=lambda wildcards: lineage(recipe(f"stacks/{wildcards.stack}.npz")),
        seed=config["seed"],
        code=stage_code("train_detector"),
    message:
        "Training the detector {wildcards.detector} on {wildcards.stack}"
    script:
        "../stages/train_detector.py"
