use rule test as test_bonferroni with:
    wildcard_constraints:
        method="bonferroni",
    params:
        code=stage_code("test", "sigad.baselines.bonferroni"),
