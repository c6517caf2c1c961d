# The template of every method's rule. A child names its method and the code that it depends on:
#
#     use rule test as test_<name> with:
#         wildcard_constraints:
#             method=variants("<name>"),
#         params:
#             code=method_code("<name>"),


rule test:
    input:
        trial_inputs,
    output:
        rows="<results>/trials/{experiment}/{method}/{part}/{chunk}.parquet",
    log:
        "<logs>/test/{experiment}/{method}/{part}/{chunk}.log",
    benchmark:
        "<benchmarks>/test/{experiment}/{method}/{part}/{chunk}.tsv"
    wildcard_constraints:
        method="the_template_itself_is_never_run",
    conda:
        "../../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=trial_memory,
        runtime=trial_minutes,
    params:
        kind=lambda wildcards: experiment_of(wildcards).kind,
        settings=part_of,
        parameters=lambda wildcards: experiment_of(wildcards).methods[wildcards.method].values,
        results=lambda wildcards, output: str(Path(output.rows).parents[4]),
        seed=config["seed"],
        lineage=trial_lineage,
        code="",
    message:
        "{wildcards.method}: {wildcards.experiment}, {wildcards.part}, trials {wildcards.chunk}"
    script:
        "../../stages/test.py"
