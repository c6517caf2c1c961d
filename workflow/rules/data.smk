# Data sets: fetched where they have to be, checked, and brought into one form.


rule download_table:
    output:
        csv=str(local_path("{dataset}", DATA)),
    log:
        "<logs>/download_table/{dataset}.log",
    benchmark:
        "<benchmarks>/download_table/{dataset}.tsv"
    wildcard_constraints:
        dataset="|".join(tables_to_download()) or "none",
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        entry=lambda wildcards: config["tabular"][wildcards.dataset],
        data=lambda wildcards, output: str(Path(output.csv).parents[1]),
    message:
        "Fetching the data set {wildcards.dataset}"
    script:
        "../stages/download_table.py"


rule prepare_table:
    input:
        table_file,
    output:
        table="<results>/data/{dataset}.parquet",
    log:
        "<logs>/prepare_table/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare_table/{dataset}.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        entry=lambda wildcards: config["tabular"][wildcards.dataset],
        data=DATA,
        file=lambda wildcards: put_there(table_path(wildcards.dataset)),
        code=stage_code("prepare_table"),
    message:
        "Preparing the data set {wildcards.dataset}"
    script:
        "../stages/prepare_table.py"


rule list_datasets:
    output:
        csv=report(
            "<results>/tables/datasets.csv",
            caption="../report/datasets.rst",
            category="Data",
        ),
    log:
        "<logs>/list_datasets.log",
    benchmark:
        "<benchmarks>/list_datasets.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        used=DATASETS,
        left_out=LEFT_OUT,
        code=stage_code("list_datasets"),
    message:
        "Listing the data sets, used and left out"
    script:
        "../stages/list_datasets.py"
