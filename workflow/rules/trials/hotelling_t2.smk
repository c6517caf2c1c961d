use rule test as test_hotelling_t2 with:
    wildcard_constraints:
        method="hotelling_t2",
    params:
        code=stage_code("test", "sigad.baselines.hotelling_t2"),
