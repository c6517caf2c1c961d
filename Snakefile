# sigad: p-values for anomalies that a detector found, and two papers reproduced.
#
#   snakemake --cores 48                                     the papers' figures
#   snakemake --cores 2 --configfile config/quick.yaml       the same figures in minutes, on data that needs no account
#   snakemake --profile profiles/slurm                       on a cluster
#
# What is computed is set in config/config.yaml; what the outputs are, in results/README.md.

from snakemake.utils import min_version

min_version("9.20")


report: "workflow/report/workflow.rst"


# Those of this folder, also when the workflow runs in another one. As a module it takes the configuration that it is given.
configfile: f"{workflow.basedir}/config/config.yaml"
configfile: f"{workflow.basedir}/config/datasets.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/stacks.smk"
include: "workflow/rules/trials/test.smk"
include: "workflow/rules/figures.smk"


# A rule for each method.
for rules_of_method in METHOD_RULES:

    include: rules_of_method


include: "workflow/rules/targets.smk"


rule all:
    default_target: True
    input:
        [figure_files(name) for name in figures()],
        tables(),


require_known(workflow.rules)
