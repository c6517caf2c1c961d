use rule test as test_uniform with:
    wildcard_constraints:
        method="uniform",
    params:
        code=stage_code("test", "sigad.baselines.uniform"),
