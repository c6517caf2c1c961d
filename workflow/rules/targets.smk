# A short name for each figure: `snakemake fig03_power_over_signal`; `snakemake --list-target-rules` tells them all.

for name, caption in figures().items():

    rule:
        name:
            name
        input:
            figure_files(name),

    getattr(rules, name).rule.docstring = caption
