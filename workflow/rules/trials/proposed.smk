use rule test as test_proposed with:
    wildcard_constraints:
        method="proposed",
    params:
        code=stage_code("test", "sigad.baselines.proposed"),
