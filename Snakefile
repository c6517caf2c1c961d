# sigad: p-values for anomalies that a detector found, and two papers reproduced.
#
#   snakemake --cores 48                                     the papers' figures
#   snakemake --cores 2 --configfile config/quick.yaml       the same figures in minutes, on data that needs no account
#   snakemake --profile profiles/slurm                       on a cluster
#
# What is computed is set in config/config.yaml; what the outputs are, in results/README.md.

from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"
configfile: "config/datasets.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/trials/test.smk"
include: "workflow/rules/trials/proposed.smk"
include: "workflow/rules/trials/proposed_any_k.smk"
include: "workflow/rules/trials/wo_pp.smk"
include: "workflow/rules/trials/opa1.smk"
include: "workflow/rules/trials/opa2.smk"
include: "workflow/rules/trials/bonferroni.smk"
include: "workflow/rules/trials/bonferroni_n.smk"
include: "workflow/rules/trials/naive.smk"
include: "workflow/rules/trials/hotelling_t2.smk"
include: "workflow/rules/trials/uniform.smk"
include: "workflow/rules/trials/unselective_oracle.smk"
include: "workflow/rules/trials/permutation.smk"
include: "workflow/rules/summary.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        figures(),
        tables(),
