# The template of every method's rule. A child names its method and the code that it depends on:
#
#     use rule test as test_<name> with:
#         wildcard_constraints:
#             method="<name>",
#         params:
#             code=method_code("<name>"),


rule test:
    input:
        unpack(trial_inputs),
    output:
        rows="<results>/trials/{experiment}/{setting}/{method}/{chunk}.parquet",
    log:
        "<logs>/test/{experiment}/{setting}/{method}/{chunk}.log",
    benchmark:
        "<benchmarks>/test/{experiment}/{setting}/{method}/{chunk}.tsv"
    wildcard_constraints:
        method="the_template_itself_is_never_run",
    conda:
        "../../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        kind=lambda wildcards: EXPERIMENTS[wildcards.experiment].kind,
        setting=setting_of,
        seed=config["seed"],
        code="",
    message:
        "{wildcards.method}: {wildcards.experiment} at {wildcards.setting}, trials {wildcards.chunk}"
    script:
        "../../stages/test.py"
