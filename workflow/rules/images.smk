# Images: fetched and cut into patches, the networks that see them, and the figures of single patches.


rule download_images:
    output:
        folder=directory(str(folder_of("{dataset}", DATA))),
    log:
        "<logs>/download_images/{dataset}.log",
    benchmark:
        "<benchmarks>/download_images/{dataset}.tsv"
    wildcard_constraints:
        dataset="|".join(images_to_download()) or "none",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
    params:
        entry=lambda wildcards: config["images"][wildcards.dataset],
        data=lambda wildcards, output: str(Path(output.folder).parents[1]),
    message:
        "Fetching the images {wildcards.dataset}"
    script:
        "../stages/download_images.py"


rule prepare_images:
    input:
        image_folder,
    output:
        images="<results>/images/{dataset}.npy",
        facts="<results>/images/{dataset}.json",
    log:
        "<logs>/prepare_images/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare_images/{dataset}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        entry=lambda wildcards: config["images"][wildcards.dataset],
        file=lambda wildcards: put_there(image_path(wildcards.dataset)),
        code=stage_code("prepare_images"),
    message:
        "Checking and preparing the images {wildcards.dataset}"
    script:
        "../stages/prepare_images.py"


rule prepare_features:
    output:
        network="<results>/features/{features}.pt",
    log:
        "<logs>/prepare_features/{features}.log",
    benchmark:
        "<benchmarks>/prepare_features/{features}.tsv"
    wildcard_constraints:
        features="[A-Za-z0-9_]+",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        entry=lambda wildcards: config["features"][wildcards.features],
        data=DATA,
        file=lambda wildcards: put_there(config["features"][wildcards.features].get("path")),
        seed=config["seed"],
        code=stage_code("prepare_features"),
    message:
        "Preparing the network {wildcards.features}"
    script:
        "../stages/prepare_features.py"


rule embed_images:
    input:
        images="<results>/images/{dataset}.npy",
        facts="<results>/images/{dataset}.json",
        features="<results>/features/{features}.pt",
    output:
        embeddings=directory("<results>/embeddings/{dataset}/{features}"),
    log:
        "<logs>/embed_images/{dataset}_{features}.log",
    benchmark:
        "<benchmarks>/embed_images/{dataset}_{features}.tsv"
    wildcard_constraints:
        features="[A-Za-z0-9_]+",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        lineage=lambda wildcards: lineage(
            recipe(f"images/{wildcards.dataset}"), recipe(f"features/{wildcards.features}")
        ),
        code=stage_code("embed_images"),
    message:
        "Features of all patches of {wildcards.dataset} by {wildcards.features}"
    script:
        "../stages/embed_images.py"


rule show_images:
    input:
        unpack(image_inputs),
    output:
        examples="<results>/images/{dataset}_examples.npz",
        noise="<results>/images/{dataset}_noise.csv",
        map="<results>/images/{dataset}_map.npz",
    log:
        "<logs>/show_images/{dataset}.log",
    benchmark:
        "<benchmarks>/show_images/{dataset}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        kind=lambda wildcards: image_settings()[wildcards.dataset][0],
        setting=lambda wildcards: image_settings()[wildcards.dataset][1].values,
        seed=config["seed"],
        alpha=config["alpha"],
        level=config["false_discovery_rate"],
        lineage=lambda wildcards: image_lineage(wildcards.dataset),
        code=lambda wildcards: stage_code(
            "show_images", f"sigad.study.kinds.{image_settings()[wildcards.dataset][0]}"
        ),
    message:
        "Examples, noise and a map of p-values of {wildcards.dataset}"
    script:
        "../stages/show_images.py"


rule plot_images:
    input:
        examples=expand("<results>/images/{dataset}_examples.npz", dataset=image_settings()),
        noise=expand("<results>/images/{dataset}_noise.csv", dataset=image_settings()),
        maps=expand("<results>/images/{dataset}_map.npz", dataset=image_settings()),
    output:
        examples=image_figure("fig05_examples", "../report/examples.rst"),
        noise=image_figure("image_noise", "../report/noise.rst"),
        maps=[
            file
            for dataset in image_settings()
            for file in image_figure(f"image_map_{dataset}", "../report/map.rst")
        ],
    log:
        "<logs>/plot_images.log",
    benchmark:
        "<benchmarks>/plot_images.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        datasets=list(image_settings()),
        level=config["false_discovery_rate"],
        lineage=lambda wildcards: [image_lineage(dataset) for dataset in image_settings()],
        code=stage_code("plot_images"),
    message:
        "Drawing the figures of single images"
    script:
        "../stages/plot_images.py"
