# Figures: PDF and PNG, and a CSV of exactly the numbers that are drawn.


rule plot_rates:
    input:
        rows=trial_files,
    output:
        rates="<results>/rates/{experiment}.csv",
        pdf="<results>/figures/{experiment}.pdf",
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/rates.rst",
            category="Rates",
            subcategory=lambda wildcards: EXPERIMENTS[wildcards.experiment].measure,
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "figure"},
        ),
        csv=report(
            "<results>/figures/{experiment}.csv",
            caption="../report/rates.rst",
            category="Rates",
            subcategory=lambda wildcards: EXPERIMENTS[wildcards.experiment].measure,
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "numbers"},
        ),
    log:
        "<logs>/plot_rates/{experiment}.log",
    benchmark:
        "<benchmarks>/plot_rates/{experiment}.tsv"
    wildcard_constraints:
        experiment=experiments_with("rates"),
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        trials=trials_of,
        lineage=experiment_lineage,
        plot=plot_of,
        measure=lambda wildcards: EXPERIMENTS[wildcards.experiment].measure,
        alpha=config["alpha"],
        level=config["confidence"],
        code=stage_code("plot_rates"),
    message:
        "Rates of {wildcards.experiment}"
    script:
        "../stages/plot_rates.py"


rule plot_validity:
    input:
        rates=expand("<results>/rates/{experiment}.csv", experiment=validity_experiments()),
    output:
        pdf="<results>/figures/real_type1.pdf",
        png=report(
            "<results>/figures/real_type1.png",
            caption="../report/validity.rst",
            category="Validity",
            labels={"figure": "real_type1", "what": "figure"},
        ),
        csv=report(
            "<results>/figures/real_type1.csv",
            caption="../report/validity.rst",
            category="Validity",
            labels={"figure": "real_type1", "what": "numbers"},
        ),
    log:
        "<logs>/plot_validity.log",
    benchmark:
        "<benchmarks>/plot_validity.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        lineage=lambda wildcards: [rates_lineage(name) for name in validity_experiments()],
        alpha=config["alpha"],
        code=stage_code("plot_validity"),
    message:
        "Drawing the Type I error on real data"
    script:
        "../stages/plot_validity.py"


rule plot_uniformity:
    input:
        rows=trial_files,
    output:
        pdf="<results>/figures/{experiment}.pdf",
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/uniformity.rst",
            category="Validity",
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "figure"},
        ),
        csv=report(
            "<results>/figures/{experiment}.csv",
            caption="../report/uniformity.rst",
            category="Validity",
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "numbers"},
        ),
        table=report(
            "<results>/tables/{experiment}.csv",
            caption="../report/uniformity.rst",
            category="Validity",
            labels=lambda wildcards: {
                "figure": wildcards.experiment,
                "what": "tests of uniformity",
            },
        ),
    log:
        "<logs>/plot_uniformity/{experiment}.log",
    benchmark:
        "<benchmarks>/plot_uniformity/{experiment}.tsv"
    wildcard_constraints:
        experiment=experiments_with("uniformity"),
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        trials=trials_of,
        lineage=experiment_lineage,
        plot=plot_of,
        code=stage_code("plot_uniformity"),
    message:
        "Drawing {wildcards.experiment}"
    script:
        "../stages/plot_uniformity.py"


rule plot_models:
    output:
        pdf="<results>/figures/fig06_models.pdf",
        png=report(
            "<results>/figures/fig06_models.png",
            caption="../report/models.rst",
            category="Data",
            labels={"figure": "fig06_models", "what": "figure"},
        ),
        csv=report(
            "<results>/figures/fig06_models.csv",
            caption="../report/models.rst",
            category="Data",
            labels={"figure": "fig06_models", "what": "numbers"},
        ),
    log:
        "<logs>/plot_models.log",
    benchmark:
        "<benchmarks>/plot_models.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        seed=config["seed"],
        code=stage_code("plot_models"),
    message:
        "Drawing the two synthetic models in two dimensions"
    script:
        "../stages/plot_models.py"


rule plot_cost:
    input:
        rows=trial_files,
    output:
        pdf="<results>/figures/{experiment}.pdf",
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/cost.rst",
            category="Cost",
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "figure"},
        ),
        csv=report(
            "<results>/figures/{experiment}.csv",
            caption="../report/cost.rst",
            category="Cost",
            labels=lambda wildcards: {"figure": wildcards.experiment, "what": "numbers"},
        ),
    log:
        "<logs>/plot_cost/{experiment}.log",
    benchmark:
        "<benchmarks>/plot_cost/{experiment}.tsv"
    wildcard_constraints:
        experiment=experiments_with("cost"),
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        trials=trials_of,
        lineage=experiment_lineage,
        plot=plot_of,
        code=stage_code("plot_cost"),
    message:
        "Drawing {wildcards.experiment}"
    script:
        "../stages/plot_cost.py"


rule plot_training:
    input:
        loss=[f"<results>/training/{name}.csv" for name in networks()],
    output:
        pdf="<results>/figures/dal_training.pdf",
        png=report(
            "<results>/figures/dal_training.png",
            caption="../report/training.rst",
            category="Models",
            labels={"figure": "dal_training", "what": "figure"},
        ),
        csv=report(
            "<results>/figures/dal_training.csv",
            caption="../report/training.rst",
            category="Models",
            labels={"figure": "dal_training", "what": "numbers"},
        ),
    log:
        "<logs>/plot_training.log",
    benchmark:
        "<benchmarks>/plot_training.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        models=[dict(item.split("=") for item in name.split("_")) for name in networks()],
        lineage=lineage(*[recipe(f"models/{name}") for name in networks()]),
        code=stage_code("plot_training"),
    message:
        "Drawing the loss curves"
    script:
        "../stages/plot_training.py"


rule plot_activation:
    output:
        pdf="<results>/figures/dal_appC_activation.pdf",
        png=report(
            "<results>/figures/dal_appC_activation.png",
            caption="../report/activation.rst",
            category="Models",
            labels={"figure": "dal_appC_activation", "what": "figure"},
        ),
        csv=report(
            "<results>/figures/dal_appC_activation.csv",
            caption="../report/activation.rst",
            category="Models",
            labels={"figure": "dal_appC_activation", "what": "numbers"},
        ),
    log:
        "<logs>/plot_activation.log",
    benchmark:
        "<benchmarks>/plot_activation.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=stage_code("plot_activation"),
    message:
        "Drawing a smooth activation and its replacement"
    script:
        "../stages/plot_activation.py"


rule diagnose:
    input:
        [f"<results>/{path}" for path in diagnosed_files()],
    output:
        table=report(
            "<results>/tables/diagnosis.csv",
            caption="../report/diagnosis.rst",
            category="Validity",
            labels={"figure": "diagnosis", "what": "all that diagnose found"},
        ),
        pdf="<results>/figures/diagnosis.pdf",
        png=report(
            "<results>/figures/diagnosis.png",
            caption="../report/diagnosis.rst",
            category="Validity",
            labels={"figure": "diagnosis", "what": "figure"},
        ),
        csv=report(
            "<results>/figures/diagnosis.csv",
            caption="../report/diagnosis.rst",
            category="Validity",
            labels={"figure": "diagnosis", "what": "numbers"},
        ),
    log:
        "<logs>/diagnose.log",
    benchmark:
        "<benchmarks>/diagnose.tsv"
    conda:
        "../../envs/sigad.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        settings=[
            [name, experiment.name, experiment.kind, setting.values]
            for name, (experiment, setting) in diagnosed_settings().items()
        ],
        results=lambda wildcards, output: str(Path(output.table).parents[1]),
        seed=config["seed"],
        alpha=config["alpha"],
        lineage=lambda wildcards: lineage(*map(recipe, diagnosed_files())),
        code=stage_code(
            "diagnose",
            "sigad.study.kinds.knn_tabular",
            "sigad.study.kinds.knn_embeddings",
            "sigad.study.kinds.localization_images",
        ),
    message:
        "Does the noise model hold?"
    script:
        "../stages/diagnose.py"
