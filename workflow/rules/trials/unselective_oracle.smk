use rule test as test_unselective_oracle with:
    wildcard_constraints:
        method="unselective_oracle",
    params:
        code=stage_code("test", "sigad.baselines.unselective_oracle"),
