use rule test as test_bonferroni_n with:
    wildcard_constraints:
        method="bonferroni_n",
    params:
        code=stage_code("test", "sigad.baselines.bonferroni_n"),
