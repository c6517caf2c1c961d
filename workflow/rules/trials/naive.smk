use rule test as test_naive with:
    wildcard_constraints:
        method="naive",
    params:
        code=stage_code("test", "sigad.baselines.naive"),
